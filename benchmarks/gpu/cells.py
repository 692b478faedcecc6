"""Cells of `dq-toolchain compare` on CIFAR-10 with 100 steps.

What is finished stays in the report's folder: with the same --out the next report goes on with the next cell.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu.following import Following
from benchmarks.gpu.record import Plan, Record
from dq_toolchain.calibrate.compare.command import compare
from dq_toolchain.calibrate.compare.plan import Request

ROOT = Path(__file__).parents[2]
MODEL, RECIPE = ROOT / "models" / "cifar10", ROOT / "benchmarks" / "cifar10_long.toml"
SHORT = """
[sampler]
steps = 2
[calibrate]
samples = 4
batch = 2
warmup = 1
settling = 0
group_iterations = 0
"""


def run(record: Record, plan: Plan) -> None:
    if plan.tiny:
        recipe = plan.scratch / "recipe.toml"
        recipe.write_text(SHORT)
        request = Request(recipe=recipe, out=plan.scratch, methods="accuquant", held_out=10)
    else:
        request = Request(recipe=RECIPE, model=MODEL, out=plan.out / "cells", methods="accuquant,qdiffusion,eda-dm", bits="W4A8",
                          steps="100", held_out=64)  # fmt: skip
    comparison = compare(request, Following(record))
    for row in comparison.rows:
        figures = {name: spread.mean for name, spread in row.figures.items() if spread is not None}
        record.row("Cells", setting=row.cell.setting, method=row.cell.method, **figures)
