"""Tiny text encoders and decoders as parts, of random modules: no pipeline, no file, a second each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.parts.quantize import quantized
from dq_toolchain.toolchain.parts.clip import ClipText
from dq_toolchain.toolchain.parts.image_to_image import VAE_ENCODER
from dq_toolchain.toolchain.parts.part import DECODER, Part
from dq_toolchain.toolchain.parts.picture import PictureDecoder, PictureEncoder
from dq_toolchain.toolchain.parts.t5 import T5Text

LENGTH, SIDE = 8, 4
CLIP: Mapping[str, Any] = {
    "vocab_size": 40, "max_position_embeddings": LENGTH, "hidden_size": 16, "intermediate_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "projection_dim": 12,
}  # fmt: skip
T5: Mapping[str, Any] = {
    "vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
    "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6, "relative_attention_max_distance": 128,
}  # fmt: skip
KL: Mapping[str, Any] = {
    "_class_name": "AutoencoderKL", "block_out_channels": [16, 16], "norm_num_groups": 4, "latent_channels": 4,
    "layers_per_block": 1, "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
    "scaling_factor": 0.18215,
}  # fmt: skip
TINY: Mapping[str, Any] = {
    "_class_name": "AutoencoderTiny", "encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8],
    "num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 1], "latent_channels": 4, "scaling_factor": 1.0,
}  # fmt: skip


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random weights, norms and biases too, so that none is where it began; eval, gradients off."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        spread = parameter.shape[1:].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        parameter.data = draw * spread + (1.0 if parameter.dim() == 1 and bool((parameter == 1).all()) else 0.0)
    return module.eval().requires_grad_(False)


def tokens(count: int = 2, masked: bool = True) -> list[dict[str, Tensor]]:
    """ids and masks of prompts of 3, 4, ... tokens."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for index in range(count):
        ids = torch.randint(1, 40, (1, LENGTH), generator=generator)
        mask = (torch.arange(LENGTH) < 3 + index).to(torch.float32)[None]
        found.append({"ids": ids, "mask": mask} if masked else {"ids": ids})
    return found


def clip_part(pooled: bool = True) -> Part:
    """CLIP with quick GELU; ``pooled``: hidden states of the layer before the last, and the projected state of the end token."""
    options: dict[str, Any] = {"skip": 1, "pooled": True} if pooled else {"skip": 0, "pooled": False}
    outputs = ("hidden", "pooled") if pooled else ("hidden",)
    module = lively(ClipText(CLIP, **options))
    return quantized("text_encoder", "clip", CLIP, options, module, tokens(masked=pooled), outputs)


def t5_part(masked: bool = True) -> Part:
    """T5 v1.1, with a mask as PixArt gives it, or without as SD3."""
    options: dict[str, Any] = {"length": LENGTH, "masked": masked}
    module = lively(T5Text(T5, **options))
    return quantized("text_encoder_3", "t5", T5, options, module, tokens(masked=masked), ("hidden",))


def latents(count: int = 2) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [{"latents": torch.randn((1, 4, SIDE, SIDE), generator=generator)} for _ in range(count)]


def decoder_part(config: Mapping[str, Any] = KL) -> Part:
    """A decoder of latents (1, 4, 4, 4) to pictures (1, 3, 8, 8)."""
    return quantized(DECODER, DECODER, config, {}, lively(PictureDecoder(config)), latents(), ("picture",))


def pictures(count: int = 2) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [{"picture": torch.rand((1, 3, 2 * SIDE, 2 * SIDE), generator=generator) * 2 - 1} for _ in range(count)]


def encoder_part(config: Mapping[str, Any] = KL) -> Part:
    """An encoder of pictures (1, 3, 8, 8) to latents (1, 4, 4, 4): a mean, and a deviation where the latent is drawn."""
    outputs = ("mean", "deviation") if config is not TINY else ("mean",)
    return quantized(VAE_ENCODER, VAE_ENCODER, config, {}, lively(PictureEncoder(config)), pictures(), outputs)


def calls_of(part: Part) -> list[dict[str, Tensor]]:
    """What a part was measured with."""
    if part.kind == VAE_ENCODER:
        return pictures()
    return latents() if part.kind == DECODER else tokens(masked=len(part.inputs) > 1)
