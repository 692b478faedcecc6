"""Which multi-step recipe: horizons, gradients and starts at equal numbers of network passes, W4A8, embedded model.

    python -m benchmarks.ablation [--passes 20000] [--seeds 1] [--json ablation.json]

All variants begin with the same single-step warm-up; then each spends the same number of passes (a backward pass counts
two forward ones) on its own kind of iteration. Figures are those of the integer simulation on held-out seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.common import Judge, fit, prepare, recipe_of
from benchmarks.quality import passes_of, row, show

CALLS = 20
VARIANTS: dict[str, dict[str, object]] = {
    "single-step": {"horizon": 1},
    "adjoint, horizon 2": {"horizon": 2},
    "adjoint, horizon 4": {"horizon": 4},
    "adjoint, horizon 10": {"horizon": 10},
    "adjoint, horizon 20": {"horizon": 20},
    "adjoint, horizon 4, inherited start": {"horizon": 4, "start": "inherited"},
    "surrogate, horizon 4": {"horizon": 4, "gradient": "surrogate"},
}


def ablate(passes: int, seeds: int, held_out: int, batch: int) -> list[dict[str, object]]:
    rows = []
    for seed in range(seeds):
        base = {
            "quantize": {"weight_bits": 4},
            "run": {"seed": seed},
            "calibrate": {"batch": batch, "group_iterations": 0},
        }
        prepared = prepare(recipe_of(base))
        judge = Judge(prepared, held_out)
        for name, variant in VARIANTS.items():
            horizon = int(str(variant["horizon"]))
            rolled_in = (CALLS - horizon) / 2 if variant.get("start") == "inherited" else 0
            cost = passes_of(horizon, batch, rolled_in)
            recipe = recipe_of(base, {"calibrate": {**variant, "iterations": max(1, round(passes / cost))}})
            artifact, seconds = fit(prepared, recipe)
            rows.append(row(name, seed, seconds, judge.figures(artifact), iterations=recipe.calibrate.iterations))
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--held-out", type=int, default=256)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = ablate(arguments.passes, arguments.seeds, arguments.held_out, arguments.batch)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
