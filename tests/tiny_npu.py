"""Small artifacts in the forms that an NPU takes: step vectors, wide activations with ranges of outputs, or fitted outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.output_ranges import OutputRanges, names_of
from dq_toolchain.toolchain.quant.attention import ProductAttnProcessor, float_product
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.qparams import activation_type, range_to_qparams
from dq_toolchain.toolchain.quant.site import results_of
from dq_toolchain.toolchain.quant.sites import attention_layers
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import rollout
from tests import tiny_artifacts
from tests.tiny import conditioning_of, noise

Form = Literal["a16", "a8"]


def for_npu(artifact: Artifact, unet: nn.Module, form: Form = "a16") -> tuple[Artifact, nn.Module]:
    """The same network in a form that an NPU takes, and the FP32 network that takes step vectors."""
    artifact, network = tiny_artifacts.with_step_vectors(artifact, unet)
    ranges = output_ranges(artifact, network)
    if form == "a16":
        return replace(tiny_artifacts.with_wide_activations(artifact), output_ranges=ranges), network
    added = results_of(artifact.sites)
    assert names_of(artifact.sites) == tuple(site.name for site in added)
    scale, zero_point = range_to_qparams(ranges.low, ranges.high, activation_type(8), added[0].scheme)
    results = replace(
        artifact,
        sites=(*artifact.sites, *added),
        scale=torch.cat([artifact.scale, scale], 1),
        zero_point=torch.cat([artifact.zero_point, zero_point], 1),
    )
    return results, network


@torch.no_grad()
def output_ranges(artifact: Artifact, network: nn.Module) -> OutputRanges:
    """Of the results of all products, over a rollout of the FP32 network."""
    given: Any = network
    names = names_of(artifact.sites)
    low, high = (torch.zeros(len(artifact.step_groups), len(names)) for _ in range(2))
    group = [0]

    def note(name: str, x: Tensor) -> None:
        if name in names:
            index = names.index(name)
            low[group[0], index] = min(low[group[0], index], x.min())
            high[group[0], index] = max(high[group[0], index], x.max())

    blocks = {block: name for name, block in attention_layers(network)}

    def product(block: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
        out = float_product(block, which, left, right)
        note(f"{blocks[block]}:{which}", out)
        return out

    def watched(name: str) -> Any:
        return lambda _module, _inputs, out: note(f"{name}:output", out)

    usual = {block: block.processor for block in blocks}
    if any(site.kind == "attention" for site in artifact.sites):
        for block in blocks:
            block.set_processor(ProductAttnProcessor(product))

    def set_step(k: int) -> None:
        group[0] = artifact.group_of_step[k]

    conditioning = Conditioning(conditioning_of(given, 4).cond)
    layers = [(name, module) for name, module in network.named_modules() if name in artifact.layers]
    with hooks(module.register_forward_hook(watched(name)) for name, module in layers):
        rollout(
            artifact.table,
            Denoiser(network, artifact.table, conditioning, set_step=set_step),
            noise(4, channels=given.config.in_channels),
        )
    for block, processor in usual.items():
        block.set_processor(processor)
    return OutputRanges(names, low, high)
