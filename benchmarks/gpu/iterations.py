"""Stable Diffusion 1.5's size: seconds and memory of rollouts, ranges and iterations, and what an iteration consists of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, TypeVar

import torch

from benchmarks.gpu.kernels import Profile
from benchmarks.gpu.network import FULL, TINY, random_model, recipe_for
from benchmarks.gpu.record import Plan, Record
from benchmarks.gpu.watch import UNTIMED, Unvalidated, Watch, fitted, peak, reset_peak, synchronize
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.multistep.stages import Stage
from dq_toolchain.calibrate.network.kernel_choice import why_not
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.measure import choose_all, observe_rollouts, shared_rollouts
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.work.host_reads import HostReads
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.recipe.sections import Precision

T = TypeVar("T")
BATCH = 4
ROUNDING = "closed-form+learned"
"""Of what is profiled; the default at 8 bits learns nothing."""
HORIZONS = (1, 4, 20, 10, 2)
"""In order of importance."""
SHORTENED: tuple[Precision, ...] = ("tf32", "bf16")
SAMPLES = BATCH + 1
"""One validates."""


def run(record: Record, plan: Plan) -> None:
    size, timed = (TINY, 1) if plan.tiny else (FULL, 4)
    recipe = recipe_for(
        size,
        plan.device,
        plan.scratch,
        calibrate={"samples": SAMPLES, "batch": BATCH, "rounding": ROUNDING},
        quantize={"weight_bits": 8},
    )
    context = _timed(record, "set up", lambda: setup(recipe, given=random_model(size, plan.device)))
    record.value("parameters_m", sum(p.numel() for p in context.network.parameters()) / 1e6)
    record.value("rollout_batch", context.rollout_batch)
    record.value("why_no_fused_kernels", why_not(context.device))
    _timed(record, "FP32 rollouts", lambda: shared_rollouts(context), context)
    targets, histograms = _timed(record, "rollouts with ranges observed", lambda: observe_rollouts(context), context)
    chosen = _timed(record, "choosing ranges", lambda: choose_all(context, histograms, recipe.calibrate))
    network = _timed(record, "weight scales, quantizers", lambda: quantize_with(context, *chosen, recipe))
    problem = Unvalidated(context=context, targets=targets, validation=1, settings=recipe.calibrate)

    def measure(horizon: int, trajectories: int, watch: Watch) -> dict[str, Any]:
        """An iteration of so many trajectories, of the stage that a calibration would have."""
        settings = recipe.calibrate.model_copy(update={"batch": trajectories if horizon == 1 else 2 * trajectories})
        stage = Stage(name=f"{horizon} steps", iterations=UNTIMED + watch.timed, horizon=horizon, window=(0, context.table.calls),
                      learned="rounding", inherited=False, gradient="adjoint")  # fmt: skip
        reset_peak(context.device)
        return asdict(fitted(replace(problem, settings=settings), network, stage, watch))

    def noted(horizon: int, trajectories: int, times: int) -> dict[str, Any]:
        found = measure(horizon, trajectories, Watch(context.device, times))
        record.row("Iterations", n=horizon, trajectories=trajectories, **found)
        record.value("peak_gb", max(record.values.get("peak_gb", 0.0), found["reserved_gb"]))
        return found

    record.value("single_step_seconds", noted(1, BATCH, timed)["seconds"])
    profile = Profile(context.device)
    measure(1, BATCH, Watch(context.device, 1, on_timed=profile.start))
    for row in profile.stop():
        record.row("Largest kernels of a single-step iteration, batch 4", **row)
    for name, value in profile.shares().items():
        record.value(name, value)
    found = {}
    for horizon in HORIZONS:
        if horizon <= context.table.calls:
            found[horizon] = noted(horizon, BATCH // 2, max(1, timed - horizon // 5))
            record.value(f"adjoint_{horizon}_seconds", found[horizon]["seconds"])
        if {1, 20} <= set(found):
            record.value("peak_20_to_1", found[20]["allocated_gb"] / found[1]["allocated_gb"])
    with torch.no_grad(), network.frozen_weights():
        _timed(
            record, "validation of one sample", lambda: super(Unvalidated, problem).validation_error(network), context
        )
    for precision in SHORTENED:
        work = partial(shared_rollouts, replace(context, precision=precision))
        rolled = _timed(record, f"rollouts in {precision}", work, context)
        error = relative_error(rolled.latents[-1], targets.latents[-1])
        record.value(f"{precision}_error_of_samples", float(error.mean()))
    with HostReads() as reads:  # last, since it slows everything down
        measure(1, BATCH, Watch(context.device, 1, on_timed=reads.found.clear))
    for place, count in sorted(reads.found.items()):
        record.row("Host reads and copies of a single-step iteration", what=str(place), count=count)
    record.value("host_reads", sum(count for place, count in reads.found.items() if place.kind != "queued"))


def _timed(record: Record, name: str, work: Callable[[], T], context: Context | None = None) -> T:
    """What ``work`` gives; its seconds are a row, per call of the sampler and sample where a context is given."""
    device = torch.device("cpu") if context is None else context.device
    reset_peak(device)
    begin = time.perf_counter()
    found = work()
    synchronize(device)
    seconds = time.perf_counter() - begin
    columns: dict[str, Any] = {"work": name, "seconds": seconds}
    if context is not None:
        samples = 1 if name.startswith("validation") else len(context.samples)
        columns |= {
            "seconds_per_call_and_sample": seconds / (context.table.calls * samples),
            "peak_gb": peak(device)[0] / 1e9,
        }
    record.row("Work before and beside the iterations", **columns)
    return found
