"""From a recipe to an artifact: FP32 rollouts, ranges, fit, and what the method does to the finished artifact.

Every stage leaves a checkpoint named after what decides it, so that a run that was killed continues, and calibrations
that share a folder of checkpoints share equal stages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dq_toolchain.calibrate.bits.budget import with_budget
from dq_toolchain.calibrate.data.adapters import lora_record
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import Rollouts, samples_at_once
from dq_toolchain.calibrate.data.samples import seeds_of
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.fitting.phase import Work, phases_of
from dq_toolchain.calibrate.fitting.run import check_workers, fit_network
from dq_toolchain.calibrate.methods import effective, resolve
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.prepare import identity
from dq_toolchain.calibrate.prepare.duration import say_duration
from dq_toolchain.calibrate.prepare.gradient_batch import as_it_began
from dq_toolchain.calibrate.prepare.memory import check_memory
from dq_toolchain.calibrate.prepare.parts_memory import check_parts_memory
from dq_toolchain.calibrate.prepare.settings import recorded
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.diagnose import (
    at_smallest_scale,
    beyond_fp16,
    constant_sites,
    say_at_smallest_scale,
    say_beyond_fp16,
    say_constant,
    weights_at_smallest_scale,
)
from dq_toolchain.calibrate.ranges.measure import (
    Histograms,
    choose_all,
    observe_chosen,
    observe_rollouts,
    shared_rollouts,
)
from dq_toolchain.calibrate.ranges.outputs import measure_outputs
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.work.checkpoint import README, CheckpointFile, mark
from dq_toolchain.calibrate.work.workers import ALONE, Workers
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.console.quiet import heard
from dq_toolchain.toolchain.disk.files import plain, require_json
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.listing import JSON as ARTIFACT_JSON
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.quant.qparams import SMALLEST_WEIGHT_SCALE
from dq_toolchain.toolchain.recipe import effort
from dq_toolchain.toolchain.recipe.sections import Recipe


@dataclass(frozen=True)
class Calibrated:
    """An artifact and what it was made from.

    Attributes:
        artifact: its table is what a device runs; it may carry a correction or other timesteps than ``context.table``.
        seconds: of calibration, all stages, also those done in an earlier run or shared with another calibration.
        ends: (M, C, H, W), FP32's finished samples of the calibration, on the CPU.
    """

    artifact: Artifact
    context: Context
    seconds: float
    ends: Tensor


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """FP32 trajectories and the activation parameters (G, L) chosen on them, on ``chosen`` (N, M) bool or all of them."""

    targets: Rollouts
    scale: Tensor
    zero_point: Tensor
    chosen: Tensor | None
    seconds: float
    seen: Mapping[str, Any]
    """What was noticed: ``constant_sites`` and ``beyond_fp16``, each only where there is any."""


def calibrated(
    recipe: Recipe,
    reporter: Reporter,
    work: Path,
    workers: Workers = ALONE,
    given: Model | None = None,
    *,
    announce: bool = False,
) -> Calibrated:
    """Calibrate with the recipe's method.

    Args:
        work: folder of checkpoints.
        workers: the processes that do this together; all get the same.
        given: a model in memory, in the place of the one that [model] names.
        announce: say before the work starts how long it takes, and refuse it where the parts that are made behind it do not fit.
    Raises:
        ToolchainError: bad input, a site that cannot be calibrated, or a folder that cannot be written.
    """
    method = resolve(recipe.calibrate.method)
    recipe = effective(recipe)
    with heard(reporter.warn):
        context = setup(recipe, method, reporter.warn, workers, given)
    with closing(context):
        if announce:
            check_parts_memory(context, recipe, reporter, stays=given is not None)
        return _calibrated(recipe, method, context, work, reporter, announce)


def _calibrated(
    recipe: Recipe, method: Method, context: Context, work: Path, reporter: Reporter, announce: bool
) -> Calibrated:
    workers = context.workers
    phases = phases_of(method.fit, recipe)
    check_workers(method.name, phases, recipe, workers, context.step_groups)
    context = check_memory(context, recipe, method, reporter)
    if announce:
        say_duration(context, recipe, method, reporter)
    kept = {
        "config": context.model.config,
        "scheduler_config": context.model.scheduler_config,
        "table": context.table.to_json(),
    }
    require_json(kept, f"the model cannot be described in {ARTIFACT_JSON}")
    rolled = identity.of_rollouts(context)
    if workers.is_first:
        mark(work)
    workers.check_sees(work / README)
    ranges = measure(recipe, method, context, work, rolled, reporter)
    if "constant_sites" in ranges.seen:
        reporter.warn(say_constant(ranges.seen["constant_sites"], len(context.step_groups)))
    if "beyond_fp16" in ranges.seen:
        reporter.warn(say_beyond_fp16(ranges.seen["beyond_fp16"]))
    raised = at_smallest_scale(context.prepared.sites, ranges.scale, ranges.seen.get("constant_sites", ()))
    for line in say_at_smallest_scale(context.prepared.sites, raised):
        reporter.warn(line)
    trajectories = Trajectories(context, ranges.targets)
    budgeted = None
    if recipe.quantize.budget is not None:
        key = identity.of_budget(rolled, context, recipe, ranges.scale, ranges.zero_point)
        checkpoint = CheckpointFile.of(work, "budget", key, workers.is_first, _names(context))
        context, budgeted = with_budget(
            recipe, context, ranges.scale, ranges.zero_point, trajectories, checkpoint, reporter
        )
    network = quantize_with(context, ranges.scale, ranges.zero_point, recipe)
    small = weights_at_smallest_scale(network)
    if small:
        reporter.warn(
            f"weights too small for {SMALLEST_WEIGHT_SCALE:.1e}, the smallest scale, quantized coarser than chosen: "
            f"{', '.join(small)}"
        )
    key = identity.of_fit(rolled, context, recipe, method, ranges.scale, ranges.zero_point, ranges.chosen)
    checkpoint = CheckpointFile.of(work, "fit", key, workers.is_first, _names(context))
    if phases:
        context = as_it_began(context, CheckpointFile.of(work, "parts", key, workers.is_first), reporter)
    fit = Work(
        recipe=recipe,
        network=network,
        trajectories=Trajectories(context, ranges.targets),
        chosen=ranges.chosen,
        block_options=method.blocks,
        checkpoint=checkpoint,
        reporter=reporter,
    )
    fitted = fit_network(phases, fit)
    record = {
        "recipe": recorded(recipe),
        "by_effort": effort.chosen(recipe),
        "seeds": seeds_of(recipe.run.seed, recipe.reference.seeds),
        "versions": identity.versions(),
        "method": identity.hyper_parameters(recipe, method, context.step_groups),
        "stages": fitted.stages,
        "growth": fitted.growth,
        "at_smallest_scale": raised,
        "budget": None if budgeted is None else budgeted.to_json(),
        "device": context.device.type,
        "lora": lora_record(context.model, recipe),
        **ranges.seen,
    }
    artifact = finalize(network, context, record)
    begin = time.perf_counter()
    for finish in method.finish:
        artifact, found = finish(artifact, trajectories)
        record |= found
    if recipe.quantize.outputs == "range":
        share = context.workers.share(len(context.samples))
        total = -(-(share.stop - share.start) // context.simulation_batch) * context.table.calls
        with reporter.task("ranges of outputs", total) as advance:
            artifact = replace(artifact, output_ranges=measure_outputs(artifact, context, advance))
    record, lost = plain(record)
    for place in lost:
        reporter.warn(f"record.{place} is no finite number and becomes null in {ARTIFACT_JSON}")
    artifact = replace(artifact, record=record)
    seconds = ranges.seconds + fitted.seconds + time.perf_counter() - begin
    seconds += 0.0 if budgeted is None else budgeted.seconds
    return Calibrated(artifact, context, seconds, ranges.targets.latents[-1].cpu().clone())


def measure(recipe: Recipe, method: Method, context: Context, work: Path, rolled: str, reporter: Reporter) -> Ranges:
    """FP32 trajectories and ranges, from the checkpoints if they are there.

    Args:
        rolled: what decides the rollouts.
    """
    first = context.workers.is_first
    rollouts = CheckpointFile.of(work, "rollouts", rolled, first)
    run = rollouts.load()
    share = context.workers.share(len(context.samples))
    mine = share.stop - share.start
    total = -(-mine // context.rollout_batch) * context.table.calls
    parallel = context.parallel_steps > 1
    each = samples_at_once(context.rollout_batch, context.parallel_steps)
    rolled_out = -(-mine // each) * context.table.calls
    histograms: Histograms | None = None
    if run is None:
        begin = time.perf_counter()
        with reporter.task("FP32 rollouts", rolled_out) as advance:
            if method.choose is None and not parallel:
                targets, histograms = observe_rollouts(context, advance)
            else:
                targets = shared_rollouts(context, None, advance)
        rolling = time.perf_counter() - begin
        rollouts.save({"latents": targets.latents, "outputs": targets.outputs}, {"seconds": rolling})
    else:
        targets, rolling = Rollouts(run[0]["latents"], run[0]["outputs"]), float(run[1]["seconds"])
    begin = time.perf_counter()
    chosen = None if method.choose is None else method.choose(Trajectories(context, targets))
    key = identity.of_ranges(rolled, context, recipe, chosen)
    checkpoint = CheckpointFile.of(work, "ranges", key, first, [site.name for site in context.prepared.sites])
    saved = checkpoint.load()
    if saved is not None:
        seconds = rolling + float(saved[1]["seconds"])
        return Ranges(
            targets=targets,
            scale=saved[0]["scale"],
            zero_point=saved[0]["zero_point"],
            chosen=chosen,
            seconds=seconds,
            seen=saved[1].get("seen", {}),
        )
    if histograms is None:
        with reporter.task("measuring ranges", context.table.calls if parallel else total) as advance:
            histograms = observe_chosen(context, targets, chosen, advance)
    sites = context.prepared.sites
    noticed = {"constant_sites": constant_sites(sites, histograms), "beyond_fp16": beyond_fp16(sites, histograms)}
    seen = {name: found for name, found in noticed.items() if found}
    scale, zero_point = choose_all(context, histograms, recipe.calibrate)
    measuring = time.perf_counter() - begin
    checkpoint.save({"scale": scale, "zero_point": zero_point}, {"seconds": measuring, "seen": seen})
    return Ranges(
        targets=targets, scale=scale, zero_point=zero_point, chosen=chosen, seconds=rolling + measuring, seen=seen
    )


def _names(context: Context) -> list[str]:
    """Of everything that a fit's tensors belong to: sites in order, then the layers that have weights."""
    sites = context.prepared.sites
    return [site.name for site in sites] + [site.layer for site in sites if site.weight_bits is not None]
