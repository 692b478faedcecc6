"""Small artifacts and their held-out rollouts, of random networks, that every test can build in a second."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.formats.output_ranges import OutputRanges, names_of
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.quant.attention import (
    ATTENTION_OPERANDS,
    PRODUCT_OPERANDS,
    ProductAttnProcessor,
    float_product,
)
from dq_toolchain.toolchain.quant.layers import float_parameters
from dq_toolchain.toolchain.quant.qparams import (
    SMALLEST_WEIGHT_SCALE,
    Scheme,
    activation_type,
    fp16_exact,
    quantize,
    range_to_qparams,
    weight_type,
)
from dq_toolchain.toolchain.quant.site import Site, operand_bits, results_of
from dq_toolchain.toolchain.quant.sites import attention_layers, float_operations, layers_to_keep, weighted_layers
from dq_toolchain.toolchain.quant.smoothing import smooth_inputs
from dq_toolchain.toolchain.quant.split import find_concat_inputs, split_concat_inputs
from dq_toolchain.toolchain.quant.step_vectors import find_step_vectors
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.denoiser import Denoiser, outputs_at
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.samplings import all_timesteps
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.tiny import conditioning_of, noise, scheduler, tiny_unet


def tiny_artifact(
    steps: int = 4,
    step_groups: int = 2,
    *,
    weight_bits: int = 8,
    scheme: Scheme = "symmetric",
    seed: int = 0,
    width: int = 16,
    attention: bool = False,
    smoothed: bool = False,
    unet: UNet2DModel | UNet2DConditionModel | None = None,
) -> tuple[Artifact, nn.Module]:
    """A min-max artifact of a UNet (``tiny_unet``) and the FP32 UNet (splits and smoothing applied) it came from.

    ``attention``: its products in integers. ``smoothed``: second convolutions of the up blocks divide their input.
    """
    unet = tiny_unet(seed, width) if unet is None else unet
    config = dict(unet.config) | {"_class_name": type(unet).__name__}
    channels = unet.config.in_channels
    table = probe(scheduler(), steps)
    groups = even_step_groups(table.calls, step_groups)
    conditioning = conditioning_of(unet, 4)
    denoiser = Denoiser(unet, table, Conditioning(conditioning.cond))
    splits = find_concat_inputs(unet, lambda: denoiser(noise(4, channels=channels), 0))
    split_concat_inputs(unet, splits)
    divided = [
        name
        for name, _ in weighted_layers(unet)
        if smoothed and name.startswith("up_blocks") and name.endswith(".conv2")
    ]
    smooth_inputs(unet, {name: torch.linspace(0.5, 2.0, unet.get_submodule(name).in_channels) for name in divided})
    layers = dict(weighted_layers(unet))
    blocks = [name for name, _ in attention_layers(unet)] if attention else []
    operands = [f"{name}:{operand}" for name in blocks for operand in ATTENTION_OPERANDS]
    low, high = (torch.zeros(len(groups), len(layers) + len(operands)) for _ in range(2))
    current = [0]
    handles = []

    def note(index: int, x: Tensor) -> None:
        low[current[0], index] = min(low[current[0], index], x.min())
        high[current[0], index] = max(high[current[0], index], x.max())

    def product(block: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
        name = next(name for name, module in attention_layers(unet) if module is block)
        for operand, x in zip(PRODUCT_OPERANDS[which], (left, right), strict=True):
            note(len(layers) + operands.index(f"{name}:{operand}"), x)
        return float_product(block, which, left, right)

    usual = {name: block.processor for name, block in attention_layers(unet)}
    if attention:
        for _, block in attention_layers(unet):
            block.set_processor(ProductAttnProcessor(product))
    for index, layer in enumerate(layers.values()):

        def observe(_module: nn.Module, inputs: tuple[Any, ...], index: int = index) -> None:
            note(index, inputs[0])

        handles.append(layer.register_forward_pre_hook(observe))
    group_of_step = [g for g, members in enumerate(groups) for _ in members]

    def set_step(k: int) -> None:
        current[0] = group_of_step[k]

    with torch.no_grad():
        rollout(
            table,
            Denoiser(unet, table, Conditioning(conditioning.cond), set_step=set_step),
            noise(4, channels=channels),
        )
    for handle in handles:
        handle.remove()
    for name, block in attention_layers(unet):
        block.set_processor(usual[name])
    scale, zero_point = range_to_qparams(low, high, activation_type(8), scheme)
    integers = {}
    kind = weight_type(weight_bits)
    for name, layer in layers.items():
        flat = layer.weight.flatten(1)
        weight_scale, _ = range_to_qparams(flat.amin(1), flat.amax(1), kind, "symmetric", SMALLEST_WEIGHT_SCALE)
        view = weight_scale.view(-1, *[1] * (layer.weight.dim() - 1))
        integers[name] = LayerWeights(quantize(layer.weight, view, 0, kind).to(torch.int8), weight_scale)
    sites = tuple(
        Site(n, "input", "conv2d" if isinstance(m, nn.Conv2d) else "linear", 8, scheme, weight_bits)
        for n, m in layers.items()
    ) + tuple(Site(name.split(":")[0], name.split(":")[1], "attention", 8, scheme) for name in operands)
    artifact = Artifact(
        model_id="tiny",
        weight_hash="0" * 64,
        config=config,
        scheduler_config=dict(scheduler().config) | {"_class_name": "DDIMScheduler"},
        table=table,
        guidance=1.0,
        step_groups=groups,
        splits=splits,
        sites=sites,
        float_operations=float_operations(unet, attention),
        layers=integers,
        scale=scale,
        zero_point=zero_point,
        float_parameters=float_parameters(unet, integers),
        record={"method": "min-max"},
        smoothed=tuple(divided),
    )
    return artifact, unet


def lively_artifact(*, step_vectors: bool = False, **options: Any) -> tuple[Artifact, nn.Module]:
    """``tiny_artifact`` with norms that are no identity, as training leaves them; perhaps ``with_step_vectors``."""
    artifact, unet = tiny_artifact(**options)
    generator = torch.Generator().manual_seed(5)
    for module in unet.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight.data.copy_(1 + 0.3 * torch.randn(module.weight.shape, generator=generator))
            module.bias.data.copy_(0.3 * torch.randn(module.bias.shape, generator=generator))
    state = unet.state_dict()
    artifact = replace(artifact, float_parameters={name: state[name] for name in artifact.float_parameters})
    return with_step_vectors(artifact, unet) if step_vectors else (artifact, unet)


def with_kept_layers(artifact: Artifact, unet: nn.Module, *patterns: str) -> Artifact:
    """The same artifact with some layers in float, their FP32 weights among the float parameters."""
    kept = layers_to_keep(unet, patterns)
    columns = [index for index, site in enumerate(artifact.sites) if site.layer not in kept]
    weights = {f"{name}.weight": unet.get_parameter(f"{name}.weight").detach() for name in kept}
    sites = tuple(artifact.sites[index] for index in columns)
    return replace(
        artifact,
        sites=sites,
        output_ranges=_ranges_of(artifact.output_ranges, sites),
        scale=artifact.scale[:, columns],
        zero_point=artifact.zero_point[:, columns],
        layers={name: layer for name, layer in artifact.layers.items() if name not in kept},
        float_operations=float_operations(unet, any(site.kind == "attention" for site in artifact.sites), kept),
        float_parameters={**artifact.float_parameters, **weights},
    )


def _ranges_of(ranges: OutputRanges | None, sites: tuple[Site, ...]) -> OutputRanges | None:
    """The part of ranges that is of these sites' products."""
    if ranges is None:
        return None
    names = names_of(sites)
    columns = [ranges.names.index(name) for name in names]
    return OutputRanges(names, ranges.low[:, columns], ranges.high[:, columns])


def with_step_vectors(artifact: Artifact, unet: nn.Module) -> tuple[Artifact, nn.Module]:
    """The same artifact with rows of a table in the place of the time embedding, and the FP32 network that takes them."""
    network: Any = copy.deepcopy(unet)
    conditioning = Conditioning(conditioning_of(network, 1).cond)

    def run(each: nn.Module) -> Tensor:
        return Denoiser(each, artifact.table, conditioning)(noise(1, channels=network.config.in_channels), 0)

    vectors, parameters = find_step_vectors(network, all_timesteps(artifact.table, artifact.samplings), run)
    columns = [index for index, site in enumerate(artifact.sites) if not vectors.replaces(site.layer)]
    attention = any(site.kind == "attention" for site in artifact.sites)
    changed = replace(
        artifact,
        sites=tuple(artifact.sites[index] for index in columns),
        scale=artifact.scale[:, columns],
        zero_point=artifact.zero_point[:, columns],
        layers={name: layer for name, layer in artifact.layers.items() if not vectors.replaces(name)},
        float_operations=float_operations(network, attention),
        float_parameters={**artifact.float_parameters, **parameters},
        step_vectors=vectors,
    )
    return changed, network


def with_wide_activations(artifact: Artifact) -> Artifact:
    """The same ranges held by 16 bits, but for second operands of attention products, as far as fp16 has such scales."""
    bits = [operand_bits(site.operand, 16) for site in artifact.sites]
    finer = torch.tensor([2.0 ** (site.bits - wide) for site, wide in zip(artifact.sites, bits, strict=True)])
    return replace(
        artifact,
        sites=tuple(replace(site, bits=wide) for site, wide in zip(artifact.sites, bits, strict=True)),
        scale=fp16_exact(artifact.scale * finer),
    )


def with_result_sites(artifact: Artifact, step: float = 0.05) -> Artifact:
    """The artifact with the result of every product quantized, at one scale."""
    added = results_of(artifact.sites)
    scale = fp16_exact(torch.full((len(artifact.step_groups), len(added)), step))
    return replace(
        artifact,
        sites=(*artifact.sites, *added),
        scale=torch.cat([artifact.scale, scale], 1),
        zero_point=torch.cat([artifact.zero_point, torch.zeros_like(scale, dtype=torch.int32)], 1),
    )


def corrected(artifact: Artifact) -> Artifact:
    """The artifact with a correction of other numbers at every step."""
    table = artifact.table
    channels = artifact.config["in_channels"]
    numbers = 0.01 * torch.randn(3, table.calls, channels, generator=torch.Generator().manual_seed(8)).double()
    rows = [tuple(map(tuple, part.tolist())) for part in (numbers[0], 1 + numbers[1], numbers[2])]
    return replace(artifact, table=replace(table, correction=Correction(*rows)))


@torch.no_grad()
def tiny_reference(artifact: Artifact, unet: nn.Module, seeds: int = 3) -> Reference:
    """Held-out rollouts of the FP32 UNet and the simulation, as calibrate writes them."""
    table: SamplerTable = artifact.table
    network: Any = unet
    start = noise(seeds, seed=99, channels=network.config.in_channels) * table.init_noise_sigma
    conditioning = conditioning_of(network, seeds)
    conditioning = conditioning if artifact.guidance != 1 else Conditioning(conditioning.cond)
    fp32 = Denoiser(unet, table.uncorrected, conditioning, artifact.guidance)
    simulated = SimulatedNetwork(artifact)
    simulation = Denoiser(simulated, table, conditioning, artifact.guidance, simulated.set_step)
    outputs: list[Tensor] = []
    latents = rollout(table, simulation, start, on_step=lambda k, x, f: outputs.append(f))
    return Reference(
        start=start,
        conditioning=conditioning,
        step_noise=None,
        fp32_latents=rollout(table, fp32, start),
        simulation_latents=latents,
        simulation_outputs=torch.stack(outputs),
        fp32_outputs_at_simulation=outputs_at(fp32, latents),
    )
