"""What decides each stage of a calibration: the values that it consumes, not the settings that they came from.

A setting that is added later, or read in another way, cannot be forgotten here: what it changes is hashed itself. How many
processes or threads share the work is left out: a run may go on with another number of them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from torch import Tensor

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.fitting.phase import WEIGHTS, phases_of
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.work.checkpoint import fingerprint
from dq_toolchain.calibrate.work.constants import constants_of
from dq_toolchain.toolchain.disk.digest import digest_of
from dq_toolchain.toolchain.formats.versions import own_version
from dq_toolchain.toolchain.recipe.sections import Recipe

PARALLEL = ("data.picard",)
RANGES = ("ranges.observer", "ranges.measure")
BUDGET = (*WEIGHTS, "bits.budget", "bits.sensitivity", "bits.allocation")
"""Modules whose constants decide a stage."""


def versions() -> dict[str, Any]:
    """Library versions that a calibration depends on."""
    libraries = {name: version(name) for name in ("torch", "diffusers", "numpy")}
    return {"dq-toolchain": own_version(), **libraries, "python": platform.python_version()}


def of_rollouts(context: Context) -> str:
    """Network (weights as they are after adapters, splits and smoothing), sampler, data, machine and precision."""
    vectors = context.prepared.step_vectors
    return fingerprint(
        "rollouts",
        versions(),
        context.device.type,
        context.model.config,
        digest_of(context.prepared.network.state_dict()),
        context.table.to_json(),
        context.guidance,
        _samples(context.samples),
        context.rollout_batch,
        *(() if context.precision == "exact" else (context.precision,)),
        *(() if vectors is None else (digest_of(vectors.at(context.table.timesteps).tensors),)),
        *(() if context.parallel_steps == 1 else (context.parallel_steps, constants_of(*PARALLEL))),
    )


def of_ranges(rollouts: str, context: Context, recipe: Recipe, chosen: Tensor | None) -> str:
    """``chosen``: (N, M) bool, the method's calibration set."""
    settings = recipe.calibrate
    percentile = settings.percentile if settings.ranges == "percentile" else None
    measured = None if chosen is None else digest_of({"chosen": chosen})
    return fingerprint(
        "ranges", rollouts, _operands(context), measured, settings.ranges, percentile, constants_of(*RANGES)
    )


def of_budget(rollouts: str, context: Context, recipe: Recipe, scale: Tensor, zero_point: Tensor) -> str:
    return fingerprint(
        "budget",
        rollouts,
        _sites(context),
        sorted(context.prepared.edges),
        context.prepared.float_layers,
        digest_of({"scale": scale, "zero_point": zero_point}),
        recipe.quantize.budget,
        recipe.run.offload,
        recipe.run.seed,
        constants_of(*BUDGET),
    )


def of_fit(
    rollouts: str,
    context: Context,
    recipe: Recipe,
    method: Method,
    scale: Tensor,
    zero_point: Tensor,
    chosen: Tensor | None,
) -> str:
    """``context``: with the bits that a budget chose."""
    return fingerprint(
        "fit",
        rollouts,
        _sites(context),
        digest_of({"scale": scale, "zero_point": zero_point, "chosen": chosen}),
        recipe.run.seed,
        recipe.run.offload,
        recipe.calibrate.rounding,
        fitted_by(recipe, method, context.step_groups),
    )


def fitted_by(recipe: Recipe, method: Method, step_groups: Iterable[tuple[int, ...]]) -> dict[str, Any]:
    """Every hyper-parameter of the fit, those of the recipe and those that the code fixes; empty without a fit."""
    groups = tuple(step_groups)
    return {
        phase.name: phase.hyper_parameters(recipe, method.blocks, groups) for phase in phases_of(method.fit, recipe)
    }


def hyper_parameters(recipe: Recipe, method: Method, step_groups: Iterable[tuple[int, ...]]) -> dict[str, Any]:
    """Of the method as it was used: what the recipe says, what the method says, and what the code fixes."""
    return {
        "name": method.name,
        "source": method.source,
        "own": method.hyper_parameters(),
        "ranges": {"by": recipe.calibrate.ranges, "percentile": recipe.calibrate.percentile, **constants_of(*RANGES)},
        "budget": None if recipe.quantize.budget is None else constants_of(*BUDGET),
        "fit": fitted_by(recipe, method, step_groups),
    }


def _sites(context: Context) -> list[Any]:
    """Columns in order, with bits and schemes, and which steps share a row."""
    return [[site.to_json() for site in context.prepared.sites], context.group_of_step]


def _operands(context: Context) -> list[Any]:
    """``_sites`` less the weights' bits, which ranges of activations do not depend on."""
    return [[replace(site, weight_bits=None).to_json() for site in context.prepared.sites], context.group_of_step]


def _samples(samples: Samples) -> str:
    conditioning = {f"cond.{name}": value for name, value in samples.conditioning.cond.items()}
    conditioning |= {f"uncond.{name}": value for name, value in samples.conditioning.uncond.items()}
    return digest_of({"start": samples.start, "step_noise": samples.step_noise, **conditioning})
