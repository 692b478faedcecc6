"""The encoder of pictures as a part, for runs that begin with a picture, and where the sampler can begin with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.notes import Warn
from dq_toolchain.calibrate.parts.quantize import quantized
from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.models.image_to_image import begins_with_pictures
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.parts.image_to_image import OUTPUTS, VAE_ENCODER, ImageToImage
from dq_toolchain.toolchain.parts.part import Part, architecture, filled
from dq_toolchain.toolchain.parts.picture import PictureEncoder, deviates, state_of
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.scheduler import sampler_starts
from dq_toolchain.toolchain.sampler.starts import Start

COLOURS = 3


@dataclass(frozen=True)
class ImageSide:
    """``means``: (S, C, h, w), what FP32 makes of the reference's pictures."""

    part: Part
    about: ImageToImage
    means: Tensor


def config_of(vae: Any) -> dict[str, Any]:
    """The config of an autoencoder as a part holds it."""
    return {"_class_name": type(vae).__name__, **{k: v for k, v in vae.config.items() if not k.startswith("_")}}


@torch.no_grad()
def image_side(
    vae: Any,
    pipeline: str,
    model: Model,
    recipe: Recipe,
    pictures: Tensor,
    measured: Sequence[Tensor],
    latents: Tensor,
    warn: Warn,
) -> ImageSide | None:
    """The encoder of an autoencoder, quantized; None where the pipeline's class begins with no picture.

    Args:
        vae: of diffusers, of a class whose decoder is exported. pipeline: diffusers' class.
        pictures: (S, 3, H, W), what FP32 decodes of ``latents`` (S, C, h, w). measured: other ones, (1, 3, H, W), for ranges.
        warn: is told why a pipeline that could begin with a picture does not.
    """
    rounds = begins_with_pictures(pipeline)
    if rounds is None:
        return None
    config = config_of(vae)
    if config["in_channels"] != COLOURS or pictures.shape[1] != COLOURS:
        warn(
            f"no image to image: the encoder takes pictures of {config['in_channels']} channels, allowed are {COLOURS}"
        )
        return None
    try:
        starts = _starts(model, recipe)
    except SamplerError as error:
        warn(f"no image to image: {error}")
        return None
    module = architecture(VAE_ENCODER, config, {})
    filled(module, {name: value.float() for name, value in state_of(vae, PictureEncoder).items()})
    calls = [{"picture": each.clamp(-1, 1)} for each in measured]
    outputs = OUTPUTS[deviates(config)]
    part = quantized(VAE_ENCODER, VAE_ENCODER, config, {}, module, calls, outputs)
    means = torch.cat([module(row[None].clamp(-1, 1))[0] for row in pictures])
    if means.shape != latents.shape:
        warn(
            f"no image to image: the encoder makes latents {tuple(means.shape[1:])}, the network's are {tuple(latents.shape[1:])}"
        )
        return None
    about = ImageToImage(
        channels=COLOURS, height=pictures.shape[2], width=pictures.shape[3], outputs=outputs, start_rounds=rounds, starts=starts
    )  # fmt: skip
    return ImageSide(part, about, means)


def _starts(model: Model, recipe: Recipe) -> dict[int, tuple[Start, ...]]:
    counts = (recipe.sampler.steps, *recipe.reference.more_steps)
    config, scheduler, eta = model.config, model.scheduler_config, recipe.sampler.eta
    return {count: sampler_starts(config, scheduler, count, eta=eta) for count in counts}
