"""What an artifact must hold to be one: shapes, dtypes, ranges and fp16-exactness of every site and parameter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import ArtifactError, ModelError
from dq_toolchain.toolchain.formats.listing import JSON, REMEDY
from dq_toolchain.toolchain.formats.output_ranges import names_of
from dq_toolchain.toolchain.models.architectures import latent_shape
from dq_toolchain.toolchain.models.loading import REFUSALS
from dq_toolchain.toolchain.models.own import OWN
from dq_toolchain.toolchain.quant.qparams import (
    SMALLEST_SCALE,
    SMALLEST_WEIGHT_SCALE,
    activation_type,
    fp16_exact,
    weight_type,
)
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.sampler.samplings import all_timesteps
from dq_toolchain.toolchain.sampler.step_groups import check_step_groups

if TYPE_CHECKING:
    from dq_toolchain.toolchain.formats.artifact import Artifact


def check_artifact(artifact: Artifact, folder: Path) -> None:
    """Raise ArtifactError unless shapes, ranges and fp16-exactness hold for every site."""

    def refuse(text: str) -> ArtifactError:
        return ArtifactError(f"{folder}: {text}; {REMEDY}")

    check_step_groups(artifact.step_groups, artifact.table.calls, f"{folder / JSON}: step groups")
    for sampling in artifact.samplings:
        fault = sampling.fault(len(artifact.step_groups))
        if fault is not None:
            raise refuse(fault)
    _check_dtypes(artifact, refuse)
    _check_parameters(artifact, refuse)
    _check_step_vectors(artifact, refuse)
    _check_correction(artifact, refuse)
    shape = (len(artifact.step_groups), len(artifact.sites))
    if tuple(artifact.scale.shape) != shape or tuple(artifact.zero_point.shape) != shape:
        raise refuse(f"activation parameters have shape {tuple(artifact.scale.shape)}, expected {shape}")
    outputs = artifact.output_ranges
    fault = None if outputs is None else outputs.fault(artifact.sites, len(artifact.step_groups))
    if fault is not None:
        raise refuse(fault)
    unknown = {site.name for site in artifact.sites if site.is_result} - set(names_of(artifact.sites))
    if unknown:
        raise refuse(f"site {min(unknown)} is the result of no product that has integers")
    if {site.layer for site in artifact.sites if site.weight_bits is not None} != set(artifact.layers):
        raise refuse("sites and integer weights are not those of the same layers")
    for index, site in enumerate(artifact.sites):
        fault = site.fault()
        if fault is not None:
            raise refuse(f"site {site.name}: {fault}")
        kind = activation_type(site.bits)
        zero_point = artifact.zero_point[:, index]
        if not _is_scale(artifact.scale[:, index]):
            raise refuse(f"scale at site {site.name} is not fp16-exact, infinite or below 6.1e-5")
        if zero_point.min() < kind.qmin or zero_point.max() > kind.qmax:
            raise refuse(f"zero_point at site {site.name} is outside {kind.qmin}..{kind.qmax}")
        if kind.is_wide and zero_point.any():
            raise refuse(f"zero_point at site {site.name}, of 16 bits, is not 0")
        if site.weight_bits is not None:
            weight, allowed = artifact.layers[site.layer].weight_q, weight_type(site.weight_bits)
            if weight.amin() < allowed.qmin or weight.amax() > allowed.qmax:
                raise refuse(f"weights of {site.layer} are outside {allowed.qmin}..{allowed.qmax}")
            if not _is_scale(artifact.layers[site.layer].weight_scale, SMALLEST_WEIGHT_SCALE):
                raise refuse(f"a weight scale of {site.layer} is not fp16-exact, infinite or below 2.3e-13")


def _check_dtypes(artifact: Artifact, refuse: Callable[[str], ArtifactError]) -> None:
    wanted = [("scale", artifact.scale, torch.float32), ("zero_point", artifact.zero_point, torch.int32)]
    for name, layer in artifact.layers.items():
        wanted += [
            (f"{name}.weight_q", layer.weight_q, torch.int8),
            (f"{name}.weight_scale", layer.weight_scale, torch.float32),
        ]
    for name, tensor, dtype in wanted:
        if tensor.dtype != dtype:
            raise refuse(f"{name} is {tensor.dtype}, expected {dtype}")
    names = [site.name for site in artifact.sites]
    if len(set(names)) != len(names):
        raise refuse("a site is listed twice")


def _check_parameters(artifact: Artifact, refuse: Callable[[str], ArtifactError]) -> None:
    """Every parameter of the architecture is there once, in its shape, and finite."""
    bad = [name for name, tensor in artifact.float_parameters.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise refuse(f"{bad[0]!r} holds NaN or infinity")
    is_own = artifact.config.get("_class_name") == OWN
    if artifact.module is not None and not is_own:
        raise refuse("its network is built from its config, and a module was given too; leave the module out")
    if is_own and artifact.module is None:
        return
    try:
        with torch.device("meta"):  # shapes only
            network = artifact.architecture()
            expected = {name: (tensor.shape, tensor.dtype) for name, tensor in network.state_dict().items()}
    except (ModelError, *REFUSALS) as error:
        raise refuse(f"the architecture cannot be built: {' '.join(str(error).split())[:400]}") from error
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in artifact.float_parameters.items()}
    found |= {f"{name}.weight": (layer.weight_q.shape, torch.float32) for name, layer in artifact.layers.items()}
    wrong = [name for name in sorted(set(expected) | set(found)) if expected.get(name) != found.get(name)]
    wrong += [name for name, layer in artifact.layers.items() if layer.weight_scale.shape != layer.weight_q.shape[:1]]
    if wrong and artifact.module is not None:
        raise ArtifactError(
            f"{wrong[0]!r} is missing, unknown or of another shape in the {type(artifact.module).__name__} that was given; "
            f"give a module built as the one that was calibrated, a {artifact.config.get('class')}"
        )
    if wrong:
        raise refuse(f"{wrong[0]!r} is missing, unknown or of another shape or dtype than in the architecture")
    listed = [*artifact.layers, *artifact.float_layers]
    if artifact.step_vectors is not None:
        modules = {name for name, _ in network.named_modules()}
        unknown = [name for name in artifact.step_vectors.modules if name not in modules]
        if unknown:
            raise refuse(f"{unknown[0]!r} has a step vector and is no module of the architecture")
        listed += [name for name, _ in weighted_layers(network) if artifact.step_vectors.replaces(name)]
    unclear = {name for name, _ in weighted_layers(network)} ^ set(listed) | {
        name for name in listed if listed.count(name) > 1
    }
    if unclear:
        raise refuse(f"{min(unclear)} must be either an integer layer or listed as kept in float")


def _check_correction(artifact: Artifact, refuse: Callable[[str], ArtifactError]) -> None:
    """It has the channels of the latent, which are not the network's inputs where that packs several places into one."""
    correction = artifact.table.correction
    if correction is None:
        return
    try:
        channels = latent_shape(artifact.config)[0]
    except ModelError as error:
        raise refuse(str(error)) from error
    if correction.channels != channels:
        raise refuse(f"the correction has {correction.channels} channels, the latents have {channels}")


def _check_step_vectors(artifact: Artifact, refuse: Callable[[str], ArtifactError]) -> None:
    """One finite row per network call, for its timestep; behind them each further timestep of the other samplers once."""
    given = artifact.step_vectors
    if given is None:
        return
    wanted = torch.tensor(all_timesteps(artifact.table, artifact.samplings), dtype=torch.float32)
    found = given.timesteps
    if (found.dtype, found.shape) != (wanted.dtype, wanted.shape) or not torch.equal(found, wanted):
        raise refuse("the step vectors are not those of the sampler's timesteps")
    shape = (len(wanted), given.width)
    if given.rows.dtype != torch.float32 or tuple(given.rows.shape) != shape or not given.rows.isfinite().all():
        raise refuse(
            f"step vectors are {given.rows.dtype} of shape {tuple(given.rows.shape)}, expected finite float32 of {shape}"
        )
    names = [vector.name for vector in (*given.vectors, *given.unused)]
    if len(set(names)) != len(names):
        raise refuse("a step vector is listed twice")


def _is_scale(scale: Tensor, smallest: float = SMALLEST_SCALE) -> bool:
    return bool(torch.isfinite(scale).all()) and torch.equal(scale, fp16_exact(scale, smallest))
