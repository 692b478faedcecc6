"""Quality against calibration time of AccuQuant and Q-Diffusion: budgets from short to long, same machine, same model.

    python -m benchmarks.time_to_quality --model models/cifar10 --recipe benchmarks/cifar10.toml --samples 128 --bits W4A8
                                         [--seeds 3] [--curve time.png]

Budgets are shares of the recipe's own iterations, of each method's all alike. Every run starts from the same FP32 rollouts.
For each budget of Q-Diffusion it says in what time AccuQuant is as good. Seconds are those of the fit alone.
"""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.common import Judge, Settings, merged, prepare, recipe_of, recorded, study_parser, study_recipe
from benchmarks.lines import save_lines
from benchmarks.quality import row, show
from dq_toolchain.calibrate.pipeline import Calibrated, calibrated
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.recipe.sections import Recipe

SHARES = {"qdiffusion": (0.25, 0.5, 1, 2), "accuquant": (0.125, 0.25, 0.5, 1)}
"""Budgets, of the recipe's iterations."""
FITTED: dict[str, dict[str, tuple[str, ...]]] = {
    "qdiffusion": {"blocks": ("iterations", "activation_iterations")},
    "accuquant": {"calibrate": ("warmup", "iterations", "settling", "group_iterations")},
}
"""Settings that are a method's budget."""
UNFITTED: dict[str, dict[str, dict[str, Any]]] = {
    "qdiffusion": {"calibrate": {"method": "mse"}},
    "accuquant": {"calibrate": dict.fromkeys(FITTED["accuquant"]["calibrate"], 0)},
}
"""What a method's time is counted from: the same calibration without its fit."""


def budget(method: str, share: float, recipe: Recipe) -> Settings:
    """The recipe settings that give ``method`` a share of its iterations."""
    settings: Settings = {"calibrate": {"method": method}}
    for section, names in FITTED[method].items():
        own = getattr(recipe, section)
        settings.setdefault(section, {}).update({name: round(share * getattr(own, name)) for name in names})
    return settings


def seconds_to(quality: float, runs: Sequence[dict[str, Any]]) -> float | None:
    """Seconds in which a method first reaches a PSNR, between its budgets on a logarithmic time axis; None if never."""
    times, values = [one["fit_seconds"] for one in runs], np.maximum.accumulate([one["psnr"] for one in runs])
    if values[-1] < quality:
        return None
    if values[0] >= quality:
        return float(times[0])
    return float(np.exp(np.interp(quality, values, np.log(times))))


def measure(base: Settings, seed: int, held_out: int) -> Iterator[dict[str, Any]]:
    seeded = {**base, "run": {"seed": seed}}
    recipe = recipe_of(seeded)
    judge = Judge(prepare(recipe).context, held_out)
    with tempfile.TemporaryDirectory() as folder:

        def run(settings: Settings) -> Calibrated:
            return calibrated(recipe_of(seeded, settings), Reporter(quiet=True), Path(folder))

        before = {method: run(settings).seconds for method, settings in UNFITTED.items()}
        for method, shares in SHARES.items():
            for share in shares:
                made = run(budget(method, share, recipe))
                yield row(method, seed, made.seconds - before[method], judge.figures(made.artifact), share=share)


def curves(rows: list[dict[str, Any]]) -> dict[str, dict[float, list[float]]]:
    """Method and seed -> seconds of the fit -> PSNR."""
    lines: dict[str, dict[float, list[float]]] = {}
    for one in rows:
        lines.setdefault(f"{one['method']}, seed {one['seed']}", {})[one["fit_seconds"]] = [one["psnr"]]
    return lines


def equal_quality(rows: list[dict[str, Any]], seed: int) -> None:
    """For every budget of Q-Diffusion: the time in which AccuQuant is as good."""
    console = Console(width=160)
    runs = {name: [one for one in rows if (one["method"], one["seed"]) == (name, seed)] for name in SHARES}
    for theirs in runs["qdiffusion"]:
        needed = seconds_to(theirs["psnr"], runs["accuquant"])
        reached = "not as good" if needed is None else f"{needed:.0f} s, {needed / theirs['fit_seconds']:.2f} of it"
        console.print(
            f"seed {seed}: Q-Diffusion {theirs['psnr']:.2f} dB in {theirs['fit_seconds']:.0f} s; AccuQuant {reached}"
        )


def main(args: argparse.Namespace) -> None:
    given = {} if args.recipe is None else tomllib.loads(args.recipe.read_text(encoding="utf-8"))
    base, rows = merged(given, study_recipe(args, {})), []
    for one in recorded((each for seed in range(args.seeds) for each in measure(base, seed, args.held_out)), args.json):
        rows.append(one)
        print(one, flush=True)
    show(rows)
    for seed in range(args.seeds):
        equal_quality(rows, seed)
    if args.curve:
        save_lines(
            args.curve, curves(rows), "seconds of the fit", "median PSNR (dB)", f"{args.bits}, {args.steps} steps"
        )


if __name__ == "__main__":
    parser = study_parser(__doc__)
    parser.add_argument("--recipe", type=Path, help="TOML file; default: the tool's own defaults")
    parser.add_argument("--curve", type=Path, help="a plot of PSNR against seconds")
    main(parser.parse_args())
