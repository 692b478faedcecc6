"""Stable Diffusion 1.5's topology with random integers, at full size or scaled: what conversions are measured on."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from dq_toolchain.backends.common.call import Call
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.quant.site import Site
from dq_toolchain.toolchain.quant.sites import float_operations, weighted_layers
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups

STEPS, WIDTHS, TEXT, TOKENS, LATENT = 20, (320, 640, 1280, 1280), 768, 77, 64


def config(scale: float) -> dict[str, Any]:
    """All widths divided by ``scale``: 1 is the full size, 860 M parameters."""
    down = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    return {
        "sample_size": LATENT, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "attention_head_dim": 8,
        "block_out_channels": tuple(int(width / scale) for width in WIDTHS), "cross_attention_dim": int(TEXT / scale),
        "down_block_types": down, "up_block_types": up, "norm_num_groups": int(32 / min(max(scale, 1), 4)),
    }  # fmt: skip


def random_artifact(scale: float, step_groups: int, weight_bits: int) -> Artifact:
    """Random integers and ranges; float parameters as an untrained network has them."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config(scale))
    generator = torch.Generator().manual_seed(0)
    high = 2 ** (weight_bits - 1)
    layers, sites = {}, []
    for name, layer in weighted_layers(unet):
        integers = torch.randint(-high, high, tuple(layer.weight.shape), generator=generator, dtype=torch.int8)
        layers[name] = LayerWeights(integers, _fp16(0.01 * torch.rand(len(integers), generator=generator) + 0.001))
        kind = "conv2d" if isinstance(layer, torch.nn.Conv2d) else "linear"
        sites.append(Site(name, "input", kind, 8, "symmetric", weight_bits))  # type: ignore[arg-type]
    floats = {
        name: torch.full(parameter.shape, float(name.endswith("weight"))) for name, parameter in unet.named_parameters()
        if name.rpartition(".")[0] not in layers or name.endswith("bias")
    }  # fmt: skip
    table = probe(DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False), STEPS)
    ranges = _fp16(0.05 * torch.rand(step_groups, len(sites), generator=generator) + 0.01)
    return Artifact(
        model_id="random", weight_hash="0" * 64, config=dict(unet.config) | {"_class_name": "UNet2DConditionModel"},
        scheduler_config={}, table=table, guidance=1.0, step_groups=even_step_groups(table.calls, step_groups), splits={},
        sites=tuple(sites), float_operations=float_operations(unet, False), layers=layers, scale=ranges,
        zero_point=torch.zeros(ranges.shape, dtype=torch.int32), float_parameters=floats, record={"method": "random"},
    )  # fmt: skip


def _fp16(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float16).to(torch.float32)


def example(scale: float) -> Call:
    """One call: 64x64 latents and 77 text tokens."""
    return Call(
        torch.zeros(1, 4, LATENT, LATENT),
        torch.tensor([500.0]),
        {"encoder_hidden_states": torch.zeros(1, TOKENS, int(TEXT / scale))},
    )


def parameters(artifact: Artifact) -> int:
    """Of the integer layers."""
    return sum(layer.weight_q.numel() for layer in artifact.layers.values())
