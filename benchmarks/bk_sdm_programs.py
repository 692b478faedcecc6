"""BK-SDM-Tiny's topology with random weights, and its float programs for ExecuTorch by the stock recipe.

Text encoder (CLIP-L), network and decoder, each by a plain export with XNNPACK: torch.export, to_edge_transform_and_lower with the
XnnpackPartitioner.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.executorch.fp32 import lower_fp32
from dq_toolchain.backends.executorch.graph.program import lower_methods
from dq_toolchain.toolchain.parts.part import DECODER, architecture
from dq_toolchain.toolchain.parts.picture import PictureDecoder

TOKENS, PIXELS, GROUPS = 77, 8, 32
PARTS = ("text encoder", "network", "decoder")


def network(side: int, scale: int) -> tuple[nn.Module, Call]:
    """BK-SDM-Tiny's UNet: three levels, one layer each, no middle block; 323 M parameters."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=side // PIXELS, layers_per_block=1, mid_block_type=None, attention_head_dim=8,
        block_out_channels=(320 // scale, 640 // scale, 1280 // scale), norm_num_groups=GROUPS // scale,
        down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=768 // scale,
    )  # fmt: skip
    text = {"encoder_hidden_states": torch.randn(1, TOKENS, 768 // scale)}
    latent = torch.randn(1, 4, side // PIXELS, side // PIXELS)
    return unet.eval().requires_grad_(False), Call(latent, torch.tensor([500.0]), text)


def decoder(scale: int) -> dict[str, Any]:
    """Config of Stable Diffusion's autoencoder."""
    widths = [128 // scale, 256 // scale, 512 // scale, 512 // scale]
    vae = AutoencoderKL(
        block_out_channels=widths, layers_per_block=2, norm_num_groups=GROUPS // scale, latent_channels=4, scaling_factor=0.18215,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return {"_class_name": "AutoencoderKL", **{k: v for k, v in vae.config.items() if not k.startswith("_")}}


def text(scale: int) -> dict[str, Any]:
    """Config of CLIP ViT-L's text encoder."""
    return {
        "vocab_size": 49408, "max_position_embeddings": TOKENS, "hidden_size": 768 // scale, "intermediate_size": 3072 // scale,
        "num_hidden_layers": 12 // scale, "num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        "projection_dim": 768 // scale,
    }  # fmt: skip


def stock(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bytes:
    """A float program without any rewrite."""
    with torch.no_grad():
        return lower_methods({"forward": torch.export.export(module, inputs, strict=False)})


def random_module(kind: str, config: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    """A part's module with the weights that its layers begin with."""
    torch.manual_seed(1)
    module = PictureDecoder(config) if kind == DECODER else type(architecture(kind, config, options))(config, **options)
    return module.eval().requires_grad_(False)


def float_programs(side: int, scale: int, folder: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """PART-float.pte of every part, by part; what is there already stays."""
    found = {part: folder / f"{part}-float.pte" for part in PARTS}
    folder.mkdir(parents=True, exist_ok=True)
    unet, call = network(side, scale)
    ids, clip = torch.randint(0, 49408, (1, TOKENS)), {"skip": 0, "pooled": False}
    makers: dict[str, Callable[[], bytes]] = {
        "text encoder": lambda: stock(random_module("clip", text(scale), clip), (ids,)),
        "network": lambda: lower_fp32(unet, call, rewritten=False),
        "decoder": lambda: stock(random_module(DECODER, decoder(scale), {}), (call.sample,)),
    }
    for part, path in found.items():
        if not path.exists():
            path.write_bytes(makers[part]())
            say(f"{part}, float: {path.stat().st_size:,} bytes")
    return found
