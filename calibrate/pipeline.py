"""From a recipe to an artifact: FP32 rollouts, ranges, fit, and what the method does to the finished artifact.

Every stage leaves a checkpoint named after what decides it, so that a run that was killed continues, and calibrations
that share a folder of checkpoints share equal stages.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from dq_toolchain.calibrate.adapters import lora_record
from dq_toolchain.calibrate.budget import with_budget
from dq_toolchain.calibrate.checkpoint import CheckpointFile, fingerprint
from dq_toolchain.calibrate.conditioning import digest
from dq_toolchain.calibrate.diagnose import at_smallest_scale, require_signal
from dq_toolchain.calibrate.finish import harden
from dq_toolchain.calibrate.fitting import check_workers, fit_network
from dq_toolchain.calibrate.measure import choose_all, observe_chosen, observe_rollouts, shared_rollouts
from dq_toolchain.calibrate.memory import check_memory
from dq_toolchain.calibrate.methods import resolve, with_settings
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.quantized import quantize_with
from dq_toolchain.calibrate.setup import Setup, setup
from dq_toolchain.calibrate.targets import Targets
from dq_toolchain.calibrate.trajectories import Trajectories
from dq_toolchain.calibrate.workers import ALONE, Workers
from dq_toolchain.toolchain.artifact import Artifact
from dq_toolchain.toolchain.files import write_bytes
from dq_toolchain.toolchain.progress import Reporter
from dq_toolchain.toolchain.quiet import heard
from dq_toolchain.toolchain.recipe import Recipe

README = b"Checkpoints of an unfinished calibration; the same command continues from them.\n"
BEFORE_THE_FIT = {"method", "samples", "ranges", "percentile", "rounding"}
"""What a method that does not fit over several steps reads of [calibrate]."""


@dataclass(frozen=True)
class Calibrated:
    """An artifact and what it was made from.

    Attributes:
        artifact: its table is what a device runs; it may carry a correction or other timesteps than ``state.table``.
        seconds: of calibration, all stages, also those done in an earlier run or shared with another calibration.
    """

    artifact: Artifact
    state: Setup
    seconds: float


@dataclass(frozen=True)
class Ranges:
    """FP32 trajectories and the activation parameters (G, L) chosen on them."""

    targets: Targets
    scale: Tensor
    zero_point: Tensor
    seconds: float


def calibrated(recipe: Recipe, reporter: Reporter, work: Path, workers: Workers = ALONE) -> Calibrated:
    """Calibrate with the recipe's method.

    Args:
        work: folder of checkpoints.
        workers: the processes that do this together; all get the same.
    Raises:
        ToolchainError: bad input, a site that cannot be calibrated, or a folder that cannot be written.
    """
    method = resolve(recipe.calibrate.method)
    recipe = with_settings(recipe, method)
    with heard(reporter.warn):
        state = setup(recipe, method, reporter.warn, workers)
    check_workers(recipe, method, workers, state.step_groups)
    check_memory(state, recipe, method, reporter)
    identity = _identity(recipe, method, state)
    if workers.is_first:
        write_bytes(work / "README.txt", README)
    ranges = measure(recipe, method, state, work, identity, reporter)
    raised = at_smallest_scale(state.prepared.sites, ranges.scale)
    if raised:
        reporter.warn(f"activations too small for an fp16 scale, quantized coarser than chosen: {', '.join(raised)}")
    trajectories = trajectories_of(recipe, state, ranges.targets)
    spent = None
    if recipe.quantize.budget is not None:
        kept = CheckpointFile(work / f"budget-{identity['fit'][:16]}.safetensors", identity["fit"], workers.is_first)
        state, spent = with_budget(recipe, state, ranges.scale, ranges.zero_point, trajectories, kept, reporter)
    network = quantize_with(state, ranges.scale, ranges.zero_point, recipe)
    checkpoint = CheckpointFile(work / f"fit-{identity['fit'][:16]}.safetensors", identity["fit"], workers.is_first)
    fitted = fit_network(recipe, method, network, state, trajectories, checkpoint, reporter)
    record = {
        "recipe": _settings(recipe),
        "seeds": {"calibration": recipe.run.seed, "held_out": recipe.reference.seeds},
        "versions": versions(),
        "stages": fitted.stages,
        "growth": fitted.growth,
        "at_smallest_scale": raised,
        "budget": None if spent is None else spent.to_json(),
        "device": state.device.type,
        "lora": lora_record(state.model, recipe),
    }
    artifact = harden(
        network, state.prepared, state.model, state.table, state.guidance, state.step_groups, record
    )
    begin = time.perf_counter()
    for finish in method.finish:
        artifact, found = finish(artifact, trajectories)
        record |= found
    seconds = ranges.seconds + (0.0 if spent is None else spent.seconds) + fitted.seconds + time.perf_counter() - begin
    return Calibrated(artifact, state, seconds)


def measure(
    recipe: Recipe, method: Method, state: Setup, work: Path, identity: Mapping[str, str], reporter: Reporter
) -> Ranges:
    """FP32 trajectories and ranges, from the checkpoints if they are there."""
    first = state.workers.is_first
    checkpoint = CheckpointFile(work / f"ranges-{identity['ranges'][:16]}.safetensors", identity["ranges"], first)
    rolled = CheckpointFile(work / f"rollouts-{identity['rollouts'][:16]}.safetensors", identity["rollouts"], first)
    run, saved = rolled.load(), checkpoint.load()
    if run is not None and saved is not None:
        return Ranges(
            _targets(run[0]), saved[0]["scale"], saved[0]["zero_point"], run[1]["seconds"] + saved[1]["seconds"]
        )
    guidance = state.guidance
    mine = len(range(len(state.samples))[state.workers.share(len(state.samples))])
    total = -(-mine // state.rollout_batch) * state.table.calls
    begin, rolling = time.perf_counter(), 0.0
    if run is None:
        with reporter.task("FP32 rollouts", total) as advance:
            if method.choose is None:
                targets, histograms = observe_rollouts(state, guidance, advance)
            else:
                targets = shared_rollouts(state, guidance, None, advance)
        rolling = time.perf_counter() - begin
        rolled.save({"latents": targets.latents, "outputs": targets.outputs}, {"seconds": rolling})
    else:
        targets = _targets(run[0])
    if run is not None or method.choose is not None:
        chosen = None if method.choose is None else method.choose(trajectories_of(recipe, state, targets))
        with reporter.task("measuring ranges", total) as advance:
            histograms = observe_chosen(state, targets, chosen, guidance, advance)
    require_signal(state.prepared.sites, histograms)
    scale, zero_point = choose_all(state, histograms, recipe.calibrate)
    measuring = time.perf_counter() - begin - rolling
    checkpoint.save({"scale": scale, "zero_point": zero_point}, {"seconds": measuring})
    return Ranges(targets, scale, zero_point, (rolling if run is None else run[1]["seconds"]) + measuring)


def trajectories_of(recipe: Recipe, state: Setup, targets: Targets) -> Trajectories:
    return Trajectories(
        state.prepared.unet,
        state.table,
        state.model.scheduler_config,
        state.samples,
        targets,
        state.guidance,
        state.device,
        recipe.run.seed,
        state.rollout_batch if state.is_large else None,
    )


def versions() -> dict[str, Any]:
    """Library versions that a calibration depends on."""
    return {name: version(name) for name in ("dq-toolchain", "torch", "diffusers", "numpy")} | {
        "python": platform.python_version()
    }


def deciding(recipe: Recipe, method: Method) -> dict[str, Any]:
    """The settings that decide a calibration: those of the phases that the method goes through."""
    settings = recipe.model_dump(
        mode="json", include={"sampler", "conditioning", "quantize", "calibrate", "blocks", "run"}, exclude={"run": {"out"}}
    )
    if "accuquant" not in method.fit:
        settings["calibrate"] = {key: value for key, value in settings["calibrate"].items() if key in BEFORE_THE_FIT}
    if "blocks" not in method.fit:
        del settings["blocks"]
    return settings


def _targets(tensors: Mapping[str, Tensor]) -> Targets:
    return Targets(tensors["latents"], tensors["outputs"])


def _settings(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude={"run": {"out"}, "export": True, "reference": True})


def _identity(recipe: Recipe, method: Method, state: Setup) -> dict[str, str]:
    """What decides the rollouts, the ranges and the fit. What a method does afterwards decides none of them."""
    settings = deciding(recipe, method)
    model = (state.model.weight_hash, state.model.config, state.model.scheduler_config, versions(), state.device.type)
    run = (settings["sampler"], digest(state.bank), settings["run"], recipe.calibrate.samples)
    quantize, calibrate = dict(settings["quantize"]), dict(settings["calibrate"])
    measured = {key: quantize[key] for key in ("activation_bits", "scheme", "attention", "split", "step_groups")}
    smoothing = None if method.smooth is None else method.smooth.__module__
    choosing = None if method.choose is None else recipe.calibrate.method
    ranged = (measured, calibrate["ranges"], calibrate["percentile"], smoothing, choosing)
    del calibrate["method"]
    fitted = (quantize, calibrate, settings.get("blocks"), method.fit, dict(method.blocks))
    return {
        "rollouts": fingerprint("rollouts", *model, *run, measured["split"], smoothing),
        "ranges": fingerprint("ranges", *model, *run, *ranged),
        "fit": fingerprint("fit", *model, *run, *ranged, *fitted),
    }
