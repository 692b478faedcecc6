"""Decoder and encoder of an autoencoder as functions of the sampler's latents: scale and shift are inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.models.decoder import scaling, unscaling

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


class PictureEncoder(nn.Module):
    """picture (1, 3, H, W) in [-1, 1] -> mean (1, C, h, w) of the latents as the sampler has them[, their deviation].

    AutoencoderKL gives a deviation, from which a latent is drawn; AutoencoderTiny's mean is the latent itself.

    Args:
        config: of a class of CLASSES.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        import diffusers

        vae = getattr(diffusers, config["_class_name"]).from_config(dict(config))
        self.encoder, self.quant_conv = vae.encoder, getattr(vae, "quant_conv", None)
        self.channels, self.deviates = int(vae.config.latent_channels), deviates(config)
        self.scaled, self.spread = scaling(vae.config)

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        z = self.encoder(picture)
        z = z if self.quant_conv is None else self.quant_conv(z)
        if not self.deviates:
            return (self.scaled(z.float()),)
        mean, logarithm = z[:, : self.channels], z[:, self.channels :]
        return self.scaled(mean.float()), self.spread(torch.exp(0.5 * logarithm.float().clamp(*LOGARITHM)))


LOGARITHM = (-30.0, 20.0)
"""Of a variance, as in diffusers' DiagonalGaussianDistribution."""


def deviates(config: Mapping[str, Any]) -> bool:
    """Whether the autoencoder of a class of CLASSES draws its latents."""
    return bool(config["_class_name"] == "AutoencoderKL")


def state_of(vae: nn.Module, kind: type[nn.Module] = PictureDecoder) -> dict[str, Tensor]:
    """The state dict of ``PictureDecoder`` or ``PictureEncoder``, of an autoencoder of diffusers."""
    names = ("decoder.", "post_quant_conv.") if kind is PictureDecoder else ("encoder.", "quant_conv.")
    return {name: value for name, value in vae.state_dict().items() if name.startswith(names)}


@torch.no_grad()
def pixels(picture: Tensor) -> Tensor:
    """(..., H, W) about -1 to 1 -> the same shape, uint8: what a file holds, as diffusers' image processors have it."""
    return ((picture.clamp(-1, 1) * 0.5 + 0.5) * 255).round().to(torch.uint8)
