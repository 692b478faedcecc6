"""A part that finds something and then fails."""

from __future__ import annotations

from benchmarks.gpu.record import Plan, Record


def run(record: Record, plan: Plan) -> None:
    record.row("Found", what="before", plan=plan.device)
    raise RuntimeError("CUDA out of memory")
