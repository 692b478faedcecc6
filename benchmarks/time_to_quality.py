"""Quality against calibration time of AccuQuant and Q-Diffusion: budgets from short to long, same machine, same model.

    python -m benchmarks.time_to_quality --model models/cifar10 --bits W4A8 [--seeds 3] [--curve time.png]

Every run starts from the same FP32 rollouts. For each budget of Q-Diffusion it says in what time AccuQuant is as good.
Seconds are those of the fit alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.common import Judge, Prepared, prepare, recipe_of, study_parser, study_recipe
from benchmarks.lines import save_lines
from benchmarks.quality import row, show
from dq_toolchain.calibrate.pipeline import Calibrated, calibrated
from dq_toolchain.toolchain.progress import Reporter

BLOCKS = (25, 50, 100, 200, 400)
"""Iterations on the rounding of each block."""
ACCUQUANT = (25, 50, 100, 200, 400, 800)
"""Single-step iterations before the multi-step ones."""
SAMPLES = 128
ACTIVATION_SHARE, SETTLING_SHARE = 0.25, 0.4
"""Iterations on activation scales per iteration on rounding, of settling per iteration of warm-up, as in the defaults."""


def budgets() -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """(method, recipe settings), from the shortest."""
    found: list[tuple[str, dict[str, dict[str, Any]]]] = []
    for count in BLOCKS:
        blocks = {"iterations": count, "activation_iterations": round(count * ACTIVATION_SHARE)}
        found.append(("qdiffusion", {"calibrate": {"method": "qdiffusion"}, "blocks": blocks}))
    for count in ACCUQUANT:
        fit = {"method": "accuquant", "warmup": count, "settling": round(count * SETTLING_SHARE)}
        found.append(("accuquant", {"calibrate": fit}))
    return found


def seconds_to(quality: float, runs: Sequence[dict[str, Any]]) -> float | None:
    """Seconds in which a method first reaches a PSNR, between its budgets on a logarithmic time axis; None if never."""
    times, values = [one["fit_seconds"] for one in runs], np.maximum.accumulate([one["psnr"] for one in runs])
    if values[-1] < quality:
        return None
    if values[0] >= quality:
        return float(times[0])
    return float(np.exp(np.interp(quality, values, np.log(times))))


def measure(base: dict[str, dict[str, Any]], seed: int, held_out: int) -> list[dict[str, Any]]:
    seeded = {**base, "run": {"seed": seed}}
    prepared: Prepared = prepare(recipe_of(seeded))
    judge, rows = Judge(prepared, held_out), []
    nothing = {"warmup": 0, "settling": 0, "group_iterations": 0}
    unfitted: dict[str, dict[str, dict[str, Any]]] = {
        "qdiffusion": {"calibrate": {"method": "mse"}},
        "accuquant": {"calibrate": nothing},
    }
    with tempfile.TemporaryDirectory() as folder:

        def run(settings: dict[str, dict[str, Any]]) -> Calibrated:
            return calibrated(recipe_of(seeded, settings), Reporter(quiet=True), Path(folder))

        before = {method: run(settings).seconds for method, settings in unfitted.items()}
        for method, settings in budgets():
            made = run(settings)
            rows.append(row(method, seed, made.seconds - before[method], judge.figures(made.artifact)))
            print(rows[-1], flush=True)
    return rows


def curves(rows: list[dict[str, Any]]) -> dict[str, dict[float, list[float]]]:
    """Method and seed -> seconds of the fit -> PSNR."""
    lines: dict[str, dict[float, list[float]]] = {}
    for one in rows:
        lines.setdefault(f"{one['method']}, seed {one['seed']}", {})[one["fit_seconds"]] = [one["psnr"]]
    return lines


def main(args: argparse.Namespace) -> None:
    base = study_recipe(args, {"samples": SAMPLES})
    rows = [one for seed in range(args.seeds) for one in measure(base, seed, args.held_out)]
    show(rows)
    console, speed_ups = Console(width=160), []
    for seed in range(args.seeds):
        runs = {
            name: [one for one in rows if (one["method"], one["seed"]) == (name, seed)]
            for name in ("qdiffusion", "accuquant")
        }
        best = max(runs["qdiffusion"], key=lambda one: one["psnr"])
        needed = seconds_to(best["psnr"], runs["accuquant"])
        reached = "never" if needed is None else f"in {needed:.0f} s"
        console.print(
            f"seed {seed}: Q-Diffusion {best['psnr']:.2f} dB in {best['fit_seconds']:.0f} s; AccuQuant as good {reached}"
        )
        if needed is not None:
            speed_ups.append(best["fit_seconds"] / needed)
    if speed_ups:
        console.print(f"time of Q-Diffusion over AccuQuant's at equal PSNR: median {statistics.median(speed_ups):.2f}")
    if args.curve:
        save_lines(args.curve, curves(rows), "seconds of the fit", "median PSNR (dB)", f"{args.bits}, {args.steps} steps")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    parser = study_parser(__doc__)
    parser.add_argument("--curve", type=Path, help="a plot of PSNR against seconds")
    main(parser.parse_args())
