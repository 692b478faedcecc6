"""Quality tables of docs/RESULTS.md: the integer simulation against FP32 on held-out seeds of the embedded model.

python -m benchmarks.quality w8            # W8A8: what step groups add, what fitting adds, without and with guidance
python -m benchmarks.quality w4            # W4A8: ranges only, single-step, AccuQuant, at equal fitting time, 3 seeds
python -m benchmarks.quality w4 --methods AccuQuant --json accuquant.json   # beside another with the other methods
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import Judge, fit, prepare, recipe_of
from dq_toolchain.toolchain.recipe.effort import TABLE

CALIBRATION_SEEDS = (0, 1, 2)
GUIDANCES = (1.0, 3.0)
METHODS = ("ranges only", "single-step", "AccuQuant")
LONGER: dict[str, Any] = {**TABLE["narrow"]["standard"].sections()["calibrate"], "iterations": 0, "horizon": 4}
"""What four-bit weights take by default, written out: the single-step variant changes some of it."""

BETTER_USE = 1.1
"""A whole batch at one step takes about a tenth less time per pass than half a batch at each of four."""


def row(name: str, seed: int, seconds: float, figures: dict[str, float], **more: Any) -> dict[str, Any]:
    return {"method": name, "seed": seed, **more, "fit_seconds": round(seconds, 1), **figures}


def w8(held_out: int, guidances: Sequence[float] = GUIDANCES) -> list[dict[str, Any]]:
    """What step groups add to ranges alone, what affine ranges add, and what fitting adds to the default."""
    rows = []
    for guidance in guidances:
        for step_groups, scheme in ((1, "symmetric"), (5, "affine"), (5, "symmetric")):
            recipe = recipe_of(
                {"quantize": {"step_groups": step_groups, "scheme": scheme}, "sampler": {"guidance": guidance}}
            )
            prepared = prepare(recipe)
            judge = Judge(prepared.context, held_out)
            default = (step_groups, scheme) == (5, "symmetric")
            for name, fitted in (("ranges only", False), ("fitted (default)", True))[: 1 + default]:
                artifact, seconds = fit(prepared, recipe, iterations=fitted)
                figures = judge.figures(artifact)
                rows.append(row(name, 0, seconds, figures, guidance=guidance, step_groups=step_groups, scheme=scheme))
                print(rows[-1], flush=True)
    return rows


def w4(
    held_out: int, seeds: Sequence[int] = CALIBRATION_SEEDS, methods: Sequence[str] = METHODS
) -> list[dict[str, Any]]:
    """Three methods from the same FP32 rollouts, with the embedded model's guidance.

    Single-step fitting has the same stages as AccuQuant and no less time; it draws all steps alike and one at a time.
    """
    rows: list[dict[str, Any]] = []
    base: dict[str, dict[str, Any]] = {
        "quantize": {"weight_bits": 4},
        "calibrate": LONGER,
    }
    for seed in seeds:
        recipe = recipe_of(base, {"run": {"seed": seed}})
        prepared = prepare(recipe)
        judge = Judge(prepared.context, held_out)
        c = recipe.calibrate
        settling = c.settling * passes_of(c.horizon, c.batch) / passes_of(1, c.batch)
        single = {"settling": round(settling * BETTER_USE), "horizon": 1, "steps": "uniform"}
        for name in methods:
            change = single if name == "single-step" else {}
            changed = recipe_of(base, {"run": {"seed": seed}, "calibrate": change})
            artifact, seconds = fit(prepared, changed, iterations=name != "ranges only")
            rows.append(row(name, seed, seconds, judge.figures(artifact)))
            print(rows[-1], flush=True)
    return rows


def passes_of(horizon: int, batch: int, rolled_in: float = 0) -> float:
    """Network passes of one iteration, forward = 1 and backward = 2, with the steps rolled in to an inherited start."""
    samples = batch if horizon == 1 else max(1, batch // 2)
    return samples * (4 * horizon - 1 + rolled_in)


def show(rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for one in rows for key in one))
    table = Table(*columns)
    for one in rows:
        table.add_row(*(f"{one[c]:.4g}" if isinstance(one.get(c), float) else str(one.get(c, "")) for c in columns))
    console = Console(width=160)
    console.print(table)
    for name in dict.fromkeys(one["method"] for one in rows):
        values = [one["psnr"] for one in rows if one["method"] == name]
        if len(values) > 1:
            console.print(
                f"{name}: PSNR mean {statistics.mean(values):.2f} dB, spread {min(values):.2f} - {max(values):.2f}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("w8", "w4"))
    parser.add_argument("--held-out", type=int, default=512, help="held-out seeds")
    parser.add_argument("--seeds", type=int, nargs="+", default=CALIBRATION_SEEDS, help="calibration seeds of w4")
    parser.add_argument("--guidance", type=float, nargs="+", default=GUIDANCES, help="of w8")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS, help="methods of w4")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    held_out = arguments.held_out
    result = (
        w8(held_out, arguments.guidance)
        if arguments.table == "w8"
        else w4(held_out, arguments.seeds, arguments.methods)
    )
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
