"""Networks of Stable Diffusion 1.5's width in the form that an NPU takes: 16-bit activations, output ranges, step vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from benchmarks.sd15 import LATENT, TEXT, TOKENS, config
from dq_toolchain.backends.common.call import Call
from dq_toolchain.calibrate.network.insert import Prepared, prepare
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.formats.output_ranges import OutputRanges, names_of
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.sites import float_operations, weighted_layers
from dq_toolchain.toolchain.recipe.sections import QuantizeSection
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups

STEPS, REACH = 20, 8.0
"""Values of every tensor are taken to lie within REACH of zero; random weights are scaled to keep them there."""


def part(name: str, scale: float) -> dict[str, Any]:
    """Config of the whole UNet, or of a small one around the blocks that a compiler finds hard.

    Args:
        name: whole | res | attention1024 | attention4096. scale: divides all widths of the whole; parts have full width.
    """
    if name == "whole":
        return config(scale)
    width, size, down = {
        "res": (640, LATENT, "DownBlock2D"),
        "attention1024": (640, LATENT // 2, "CrossAttnDownBlock2D"),
        "attention4096": (320, LATENT, "CrossAttnDownBlock2D"),
    }[name]
    return {
        "sample_size": size, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "attention_head_dim": 8,
        "block_out_channels": (width,), "cross_attention_dim": TEXT, "down_block_types": (down,),
        "mid_block_type": None, "up_block_types": ("UpBlock2D",), "norm_num_groups": 32,
    }  # fmt: skip


def npu_artifact(unet: Mapping[str, Any], step_groups: int, weight_bits: int) -> tuple[Artifact, Call]:
    """An artifact with random weights, rounded to nearest, and ranges of REACH; attention products in integers. Step groups differ
    in their scales, by 10 % each."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(**unet).eval()
    table = probe(DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False), STEPS)
    size, text = int(unet["sample_size"]), torch.zeros(1, TOKENS, int(unet["cross_attention_dim"]))
    latent = torch.zeros(1, int(unet["in_channels"]), size, size)

    def run(given: nn.Module) -> Tensor:
        return call_network(given, latent, torch.tensor([table.timesteps[0]]), {"encoder_hidden_states": text})

    settings = QuantizeSection(
        weight_bits=weight_bits, activation_bits=16, outputs="range", step_vectors=True, attention="int8"
    )
    with torch.no_grad():
        prepared = prepare(network, settings, run, timesteps=table.timesteps)
    factors = 1 + 0.1 * torch.arange(step_groups)[:, None]
    levels = torch.tensor([2.0 ** (site.bits - 1) - 1 for site in prepared.sites])
    names = names_of(prepared.sites)
    reach = REACH * factors.expand(step_groups, len(names)).contiguous()
    scale = _fp16(REACH * factors / levels)
    vectors = prepared.step_vectors
    assert vectors is not None
    artifact = Artifact(
        model_id="random", weight_hash="0" * 64, config=dict(network.config) | {"_class_name": "UNet2DConditionModel"},
        scheduler_config={}, table=table, guidance=1.0, step_groups=even_step_groups(table.calls, step_groups),
        splits=prepared.splits, sites=prepared.sites, float_operations=float_operations(prepared.network, True),
        layers=_integers(prepared), scale=scale, zero_point=torch.zeros(scale.shape, dtype=torch.int32),
        float_parameters=_floats(prepared), record={"method": "random"}, step_vectors=vectors,
        output_ranges=OutputRanges(names, -reach, reach.clone()),
    )  # fmt: skip
    return artifact, Call(latent, vectors.rows[:1], {"encoder_hidden_states": text})


def _integers(prepared: Prepared) -> dict[str, LayerWeights]:
    bits = {site.layer: site.weight_bits for site in prepared.sites if site.operand == "input"}
    layers = {}
    for name, layer in weighted_layers(prepared.network):
        top = 2 ** ((bits[name] or 8) - 1) - 1
        flat = layer.weight.detach().flatten(1)
        scale = _fp16(flat.abs().amax(1).clamp_min(1e-3) / top)
        integers = (flat / scale[:, None]).round().clamp(-top, top).to(torch.int8)
        layers[name] = LayerWeights(integers.reshape(layer.weight.shape), scale)
    return layers


def _floats(prepared: Prepared) -> dict[str, Tensor]:
    integer = {site.layer for site in prepared.sites}
    kept = {
        name: parameter.detach()
        for name, parameter in prepared.network.named_parameters()
        if name.rpartition(".")[0] not in integer or name.endswith("bias")
    }
    return kept | dict(prepared.time_parameters)


def _fp16(x: Tensor) -> Tensor:
    return x.to(torch.float16).to(torch.float32)
