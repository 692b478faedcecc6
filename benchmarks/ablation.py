"""What AccuQuant's parts are worth, at equal numbers of network passes.

    python -m benchmarks.ablation recipe [--passes 20000] [--seeds 1] [--json ablation.json]
    python -m benchmarks.ablation groups --model models/cifar10 --bits W4A6 [--curve groups.png]

``recipe``: which multi-step recipe. All variants begin with the same single-step warm-up; then each spends the same number
of passes (a backward pass counts two forward ones) on its own kind of iteration, with the integers fixed ("settling")
unless it says otherwise. ``groups``: how many steps share activation parameters and are simulated at once, AccuQuant's n,
with the exact gradient and with the paper's. Figures are those of the integer simulation on held-out seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.common import Judge, WarmUp, fit, prepare, recipe_of, study_parser, study_recipe
from benchmarks.lines import save_lines
from benchmarks.quality import row, show

BASE: dict[str, Any] = {
    "samples": 512,
    "batch": 8,
    "warmup": 300,
    "iterations": 0,
    "settling": 0,
    "steps": "growth",
    "rounding": "learned",
    "scale_lr": 2e-3,
    "rounding_lr": 3e-3,
}
"""Written out, so that it stays what the tables were measured with: four-bit weights took it before closed-form rounding."""

GROUP_SIZES = (1, 2, 5, 10, 20)
RECIPES: dict[str, dict[str, Any]] = {
    "warm-up only": {},
    "single-step": {"horizon": 1},
    "single-step, all steps alike": {"horizon": 1, "steps": "uniform"},
    "adjoint, horizon 2": {"horizon": 2},
    "adjoint, horizon 4": {"horizon": 4},
    "adjoint, horizon 10": {"horizon": 10},
    "adjoint, horizon 20": {"horizon": 20},
    "adjoint, horizon 10, inherited start": {"horizon": 10, "start": "inherited"},
    "surrogate, horizon 10": {"horizon": 10, "gradient": "surrogate"},
    "adjoint, horizon 10, rounding too": {"horizon": 10, "stage": "iterations"},
    "adjoint, horizon 4, no warm-up": {"horizon": 4, "warmup": 0, "stage": "iterations"},
}


def groups(calls: int) -> dict[str, dict[str, Any]]:
    """Variants in which step groups of n steps are fitted over horizons of n steps."""
    return {
        f"n = {n}, {gradient}": {"horizon": n, "gradient": gradient, "step_groups": calls // n}
        for n in GROUP_SIZES
        if calls % n == 0
        for gradient in ("adjoint", "surrogate")
        if n > 1 or gradient == "adjoint"  # of one step there is nothing to approximate
    }


def passes_of(horizon: int, batch: int, rolled_in: float = 0) -> float:
    """Network passes of one iteration, forward = 1 and backward = 2, with the steps rolled in to an inherited start."""
    samples = batch if horizon == 1 else max(1, batch // 2)
    return samples * (4 * horizon - 1 + rolled_in)


def settings_of(variant: dict[str, Any], passes: int, calls: int) -> dict[str, Any]:
    """[calibrate] settings of a variant that spends ``passes`` network passes after the warm-up."""
    settings = {name: value for name, value in variant.items() if name not in ("stage", "step_groups")}
    if not variant:
        return settings
    horizon = int(variant["horizon"])
    rolled_in = (calls - horizon) / 2 if variant.get("start") == "inherited" else 0
    cost = passes_of(horizon, BASE["batch"], rolled_in)
    if variant.get("warmup") == 0:
        passes += round(BASE["warmup"] * passes_of(1, BASE["batch"]))
    return settings | {variant.get("stage", "settling"): max(1, round(passes / cost))}


def ablate(variants: dict[str, dict[str, Any]], base: dict[str, dict[str, Any]], args: argparse.Namespace) -> list[Any]:
    rows = []
    for seed in range(args.seeds):
        seeded = {**base, "run": {"seed": seed}}
        prepared = judge = None
        count = None
        warm_ups: dict[tuple[Any, ...], WarmUp] = {}
        for name, variant in variants.items():
            change = {"quantize": {"step_groups": variant["step_groups"]}} if "step_groups" in variant else {}
            if prepared is None or judge is None or count != variant.get("step_groups"):
                prepared = prepare(recipe_of(seeded, change))
                judge = Judge(prepared.context, args.held_out)
                count = variant.get("step_groups")
            recipe = recipe_of(seeded, change, {"calibrate": settings_of(variant, args.passes, args.steps)})
            alike = (count, recipe.calibrate.steps, recipe.calibrate.warmup)
            warm_up = warm_ups.setdefault(alike, WarmUp()) if recipe.calibrate.warmup else None
            artifact, seconds = fit(prepared, recipe, warm_up=warm_up)
            rows.append(row(name, seed, seconds, judge.figures(artifact)))
            print(rows[-1], flush=True)
    return rows


def curves(rows: list[dict[str, Any]]) -> dict[str, dict[float, list[float]]]:
    """Gradient -> n -> PSNR of the seeds, of what ``groups`` gave."""
    lines: dict[str, dict[float, list[float]]] = {}
    for one in rows:
        n, gradient = one["method"].removeprefix("n = ").split(", ")
        lines.setdefault(gradient, {}).setdefault(float(n), []).append(one["psnr"])
    return lines


def main(args: argparse.Namespace) -> None:
    if args.curve and args.set != "groups":
        raise SystemExit("--curve draws what `groups` varies; leave it out")
    base = study_recipe(args, BASE)
    rows = ablate(RECIPES if args.set == "recipe" else groups(args.steps), base, args)
    show(rows)
    if args.curve:
        title = f"{args.bits}, {args.steps} steps, {args.passes} network passes after the warm-up"
        save_lines(args.curve, curves(rows), "n: steps of a group, simulated at once", "median PSNR (dB)", title)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    parser = study_parser(__doc__)
    parser.add_argument("set", choices=("recipe", "groups"))
    parser.add_argument("--curve", type=Path, help="of groups: a plot of PSNR against n")
    parser.add_argument("--passes", type=int, default=20_000)
    main(parser.parse_args())
