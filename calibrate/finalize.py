"""From fitted quantizers to the artifact, and the held-out rollouts that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import rollouts_of
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.disk.spill import Spill
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.quant.layers import float_parameters
from dq_toolchain.toolchain.quant.qparams import fp16_exact
from dq_toolchain.toolchain.quant.site import Site, has_wide_activations
from dq_toolchain.toolchain.quant.sites import float_operations
from dq_toolchain.toolchain.sampler.denoiser import Denoiser, each_output_at
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


@torch.no_grad()
def finalize(network: QuantizedNetwork, context: Context, record: Mapping[str, Any]) -> Artifact:
    """The artifact of a fitted network: integers, fp16-exact scales, and the float parameters that stay."""
    model, prepared = context.model, context.prepared
    quantizers = [network.activations[site.name] for site in network.sites]
    return Artifact(
        model_id=model.id,
        weight_hash=model.weight_hash,
        config=model.config,
        scheduler_config=model.scheduler_config,
        table=context.table,
        guidance=context.guidance,
        step_groups=context.step_groups,
        splits=prepared.splits,
        sites=prepared.sites,
        float_operations=float_operations(
            prepared.network, any(site.kind == "attention" for site in prepared.sites), prepared.float_layers
        ),
        layers={name: _layer_weights(network, name, context.spill) for name in network.layers},
        scale=torch.stack([fp16_exact(q.log_scale.exp()) for q in quantizers], dim=1).cpu(),
        zero_point=torch.stack([q.zero_point for q in quantizers], dim=1).to("cpu", torch.int32),
        float_parameters={
            n: t.cpu().contiguous()
            for n, t in (
                _as_held(float_parameters(prepared.network, network.layers), prepared.sites)
                | network.biases()
                | dict(prepared.time_parameters)
            ).items()
        },
        record=record,
        smoothed=prepared.smoothed,
        module=model.module,
        step_vectors=prepared.step_vectors,
        steps=context.steps if context.samplings else None,
        samplings=context.samplings,
    )


def _as_held(parameters: Mapping[str, Tensor], sites: Sequence[Site]) -> dict[str, Tensor]:
    """Of norms and all else between products. With 16-bit activations the nearest fp16 numbers: what takes such activations
    computes in fp16 there, and the rounding of a norm's weight, the same at every pixel, becomes a bias of the picture (0.1 of the
    error on the digits). So the simulation knows it. Numbers that fp16 does not hold stay."""
    if not has_wide_activations(sites):
        return dict(parameters)
    halves = {
        name: value.half().to(value.dtype) if value.is_floating_point() else value for name, value in parameters.items()
    }
    return {name: torch.where(half.isfinite(), half, parameters[name]) for name, half in halves.items()}


def _layer_weights(network: QuantizedNetwork, name: str, spill: Spill | None) -> LayerWeights:
    network.bring(name)
    integers, scale = network.layers[name].weight_quantizer.export()
    integers = integers.cpu().contiguous() if spill is None else spill.keep(integers)
    return LayerWeights(integers, scale.cpu().contiguous())


@torch.no_grad()
def held_out_reference(
    artifact: Artifact,
    fp32: nn.Module,
    table: SamplerTable,
    samples: Samples,
    *,
    batch: int,
    advance: Advance = lambda n=1: None,
) -> Reference:
    """Rollouts of held-out samples in FP32 and in the simulation, and FP32's answers at the simulation's latents.

    Args:
        table: the sampler as FP32 runs it; the artifact's own may carry a correction or other timesteps.
    """
    simulated = SimulatedNetwork(artifact)
    guidance, plain = artifact.guidance, artifact.table.uncorrected
    run = partial(rollouts_of, guidance=guidance, batch=batch, device=torch.device("cpu"), advance=advance)
    reference = run(fp32, table, samples)
    simulation = run(simulated, artifact.table, samples, set_step=simulated.set_step)
    answers = torch.empty_like(simulation.outputs)
    for begin in range(0, len(samples), batch):
        rows = slice(begin, begin + batch)
        network = Denoiser(fp32, plain, samples.conditioning.select(rows), guidance)
        for k, answer in enumerate(each_output_at(network, simulation.latents[:, rows])):
            answers[k, rows] = answer
            advance(1)
    return Reference(
        start=samples.start,
        conditioning=samples.conditioning,
        step_noise=samples.step_noise,
        fp32_latents=reference.latents,
        simulation_latents=simulation.latents,
        simulation_outputs=simulation.outputs,
        fp32_outputs_at_simulation=answers,
    )
