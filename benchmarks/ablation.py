"""Which multi-step recipe: horizons, gradients and starts at equal numbers of network passes, W4A8, embedded model.

    python -m benchmarks.ablation [--passes 20000] [--seeds 1] [--json ablation.json]

All variants begin with the same single-step warm-up; then each spends the same number of passes (a backward pass counts
two forward ones) on its own kind of iteration, with the integers fixed ("settling") unless it says otherwise. Figures
are those of the integer simulation on held-out seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.common import Judge, fit, prepare, recipe_of
from benchmarks.quality import LONGER, passes_of, row, show

CALLS = 20
BASE = {**LONGER, "warmup": 300, "settling": 0}
VARIANTS: dict[str, dict[str, object]] = {
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
}


def variant_settings(variant: dict[str, object], passes: int) -> dict[str, object]:
    """[calibrate] settings of a variant that spends ``passes`` network passes after the warm-up."""
    settings = {name: value for name, value in variant.items() if name != "stage"}
    if not variant:
        return settings
    horizon = int(str(variant["horizon"]))
    rolled_in = (CALLS - horizon) / 2 if variant.get("start") == "inherited" else 0
    cost = passes_of(horizon, LONGER["batch"], rolled_in)
    return settings | {str(variant.get("stage", "settling")): max(1, round(passes / cost))}


def ablate(passes: int, seeds: int, held_out: int) -> list[dict[str, object]]:
    rows = []
    for seed in range(seeds):
        base: dict[str, dict[str, object]] = {
            "quantize": {"weight_bits": 4},
            "sampler": {"guidance": 1.0},
            "run": {"seed": seed},
            "calibrate": BASE,
        }
        prepared = prepare(recipe_of(base))
        judge = Judge(prepared, held_out)
        for name, variant in VARIANTS.items():
            recipe = recipe_of(base, {"calibrate": variant_settings(variant, passes)})
            artifact, seconds = fit(prepared, recipe)
            rows.append(row(name, seed, seconds, judge.figures(artifact)))
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=256)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = ablate(arguments.passes, arguments.seeds, arguments.held_out)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
