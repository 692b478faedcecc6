"""Outputs of layers in integers too, for the forms of targets that want them.

The artifact has input parameters only; the ranges of the outputs are measured in the simulation. Output quantization
is an error of its own, so the bundle's reference and limits are those of a simulation that has it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.quant.qparams import activation_type, fake_quantize, range_to_qparams
from dq_toolchain.toolchain.sampler.denoiser import Denoiser, outputs_at
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.simulation.network import SimulatedLayer, SimulatedNetwork
from dq_toolchain.toolchain.verdict.limits import limits_for

Hook = Callable[[int, Tensor, int], Tensor | None]


@dataclass(frozen=True)
class OutputQParams:
    """scale (G, L) float32 and zero_point (G, L) int32 of every site's output, columns in the order of the sites."""

    scale: Tensor
    zero_point: Tensor


def _simulation(artifact: Artifact, reference: Reference, hook: Hook) -> Denoiser:
    """The integer simulation; what ``hook(site, output, step group)`` returns replaces a layer's output."""
    network = SimulatedNetwork(artifact)
    for name, layer in network.inner.named_modules():
        if isinstance(layer, SimulatedLayer):
            index = artifact.site_index(name)

            def after(_layer: nn.Module, _inputs: object, out: Tensor, index: int = index) -> Tensor | None:
                return hook(index, out, network.switch.current)

            layer.register_forward_hook(after)
    return Denoiser(network, artifact.table, reference.conditioning, artifact.guidance, network.set_step)


@torch.no_grad()
def output_qparams(artifact: Artifact, reference: Reference) -> OutputQParams:
    """Smallest and largest output of every layer in every step group, over the simulation's own latents.

    Raises:
        BackendError: a layer's output is not finite.
    """
    shape = (len(artifact.step_groups), len(artifact.sites))
    low, high = torch.zeros(shape), torch.zeros(shape)

    def observe(index: int, out: Tensor, group: int) -> None:
        low[group, index] = torch.minimum(low[group, index], out.min())
        high[group, index] = torch.maximum(high[group, index], out.max())

    outputs_at(_simulation(artifact, reference, observe), reference.simulation_latents)
    if not (low.isfinite().all() and high.isfinite().all()):
        raise BackendError("the simulation's outputs are not finite, so there are no output ranges; calibrate again")
    scale, zero_point = torch.empty(shape), torch.empty(shape, dtype=torch.int32)
    for index, site in enumerate(artifact.sites):
        column = range_to_qparams(low[:, index], high[:, index], activation_type(8), site.scheme)
        scale[:, index], zero_point[:, index] = column
    return OutputQParams(scale, zero_point)


@torch.no_grad()
def output_reference(
    artifact: Artifact, reference: Reference, outputs: OutputQParams
) -> tuple[Reference, dict[str, Any]]:
    """The reference and limits of a bundle whose outputs are quantized too.

    The simulation's latents stay (the FP32 outputs at them are known), its outputs at them are computed anew; what
    ``validate`` expects of whole rollouts is this simulation's own, which becomes ``program_latents``.
    """

    def quantize(index: int, out: Tensor, group: int) -> Tensor:
        return fake_quantize(out, outputs.scale[group, index], outputs.zero_point[group, index], activation_type(8))

    denoiser = _simulation(artifact, reference, quantize)
    whole = replace(
        reference,
        simulation_outputs=outputs_at(denoiser, reference.simulation_latents),
        program_latents=rollout(artifact.table, denoiser, reference.start, noise=reference.step_noise),
    )
    return whole, limits_for(whole)
