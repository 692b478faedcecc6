"""The decoder of an autoencoder as a function of what the sampler leaves: its scale and shift are inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.models.decoder import unscaling

CLASSES = ("AutoencoderKL", "AutoencoderTiny")
"""Autoencoders whose decoder is a function in operations that targets lower; others decode on the host only."""


class PictureDecoder(nn.Module):
    """latents (1, C, h, w) as the sampler leaves them -> picture (1, 3, H, W), about -1 to 1, not clamped.

    Args:
        config: of a class of CLASSES.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        import diffusers

        kind = getattr(diffusers, config["_class_name"])
        vae = kind.from_config(dict(config))
        self.decoder, self.post_quant_conv = vae.decoder, getattr(vae, "post_quant_conv", None)
        self.unscaled = unscaling(vae.config)

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        z = self.unscaled(latents)
        z = z if self.post_quant_conv is None else self.post_quant_conv(z)
        return (self.decoder(z),)


def state_of(vae: nn.Module) -> dict[str, Tensor]:
    """The state dict of ``PictureDecoder``, of an autoencoder of diffusers."""
    return {
        name: value for name, value in vae.state_dict().items() if name.startswith(("decoder.", "post_quant_conv."))
    }


@torch.no_grad()
def pixels(picture: Tensor) -> Tensor:
    """(..., H, W) about -1 to 1 -> the same shape, uint8: what a file holds, as diffusers' image processors have it."""
    return ((picture.clamp(-1, 1) * 0.5 + 0.5) * 255).round().to(torch.uint8)
