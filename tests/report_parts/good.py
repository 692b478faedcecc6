"""A part that ends at once."""

from __future__ import annotations

from benchmarks.gpu.record import Plan, Record


def run(record: Record, plan: Plan) -> None:
    record.value("card", "a card")
    record.row("Found", seconds_left=plan.seconds)
