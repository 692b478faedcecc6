"""Iterations of the embedded model replayed from CUDA graphs beside the same ones run kernel by kernel, in turn."""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.gpu.record import Plan, Record
from benchmarks.graph_speed import Case, as_on_a_gpu, measure
from dq_toolchain.calibrate.network.tape import Tape

HORIZONS = (1, 4)
"""Denoising steps of an iteration: of the single-step stage and of the others."""


def run(record: Record, plan: Plan) -> None:
    """The part fails, with the reason, where passes cannot be recorded."""
    if plan.tiny:
        with as_on_a_gpu():
            figures = measure(Case(device=plan.device, samples=2, steps=2, rounds=1), Tape)
        record.row("Iterations", **asdict(figures))
        return
    for horizon in HORIZONS:
        figures = measure(Case(device=plan.device, horizon=horizon, samples=16 // min(horizon, 2)))
        record.row("Iterations", **asdict(figures))
        record.value(f"plain_to_replayed_{horizon}", figures.ratio)
