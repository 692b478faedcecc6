"""What making the parts takes of memory, at the end of a calibration: known from files and configs, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dq_toolchain.calibrate.data.encoders import ENCODERS, STEM, encoders_of
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.activations import activations_of
from dq_toolchain.toolchain.models.hub import STEM as AUTOENCODER
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.models.parts import find_weights, tensor_sizes
from dq_toolchain.toolchain.models.source import read_config
from dq_toolchain.toolchain.parts.part import DECODER, architecture
from dq_toolchain.toolchain.parts.picture import CLASSES
from dq_toolchain.toolchain.recipe.sections import Recipe

FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class PartsMemory:
    """Bytes of tensors.

    Attributes:
        text: all text encoders with their integers. integers: of them, which stay until the folder is written.
        decoder: the autoencoder and what its decoder makes of one picture's latents; its encoder takes
            less, later.
    """

    text: int = 0
    integers: int = 0
    decoder: int = 0

    @property
    def peak(self) -> int:
        """Text encoders come first and are freed; their integers stay."""
        return max(self.text, self.integers + self.decoder)


def parts_memory(model: Model, recipe: Recipe, latent: Sequence[int]) -> PartsMemory | None:
    """None where no parts are made. What is in memory already, of a pipeline that a caller gave, does not count.

    Args:
        latent: shape (C, h, w) of a sample.
    """
    if model.pipeline is None and not (model.folder / "model_index.json").is_file():
        return None
    found = [sizes for name in ENCODERS if (sizes := _encoder(model, name))]
    loaded = 0 if model.pipeline is not None else FLOAT * sum(map(sum, found))
    integers, most = 0, 0
    for sizes in found:
        table, *rest = sorted(sizes, reverse=True)
        # Of the layer that is rounded there are two copies in float32; the table of tokens is the first and the largest.
        most = max(most, integers + 2 * FLOAT * table, integers + sum(sizes) + 2 * FLOAT * max(rest, default=0))
        integers += sum(sizes)
    return PartsMemory(text=loaded + most, integers=integers, decoder=_decoder(model, recipe, latent))


def _encoder(model: Model, name: str) -> list[int]:
    """Numbers of each tensor; none where there is no such encoder, or its files are not whole, which is said when they are read."""
    if model.pipeline is not None:
        module = getattr(model.pipeline, name, None)
        return [] if module is None else [parameter.numel() for parameter in module.parameters()]
    if name not in encoders_of(model.folder):
        return []
    return _sizes(model.folder / name, STEM)


def _sizes(folder: Path, stem: str) -> list[int]:
    try:
        return tensor_sizes(find_weights(folder, stem))
    except ModelError:
        return []


def decoder_place(model: Model, recipe: Recipe) -> Path | None:
    """Folder of the autoencoder; None where there is none, or it is in memory."""
    given = recipe.model.vae
    if given is None and model.pipeline is not None:
        return None
    inside = (model.folder if given is None else given) / "vae"
    return inside if inside.is_dir() else given


def _decoder(model: Model, recipe: Recipe, latent: Sequence[int]) -> int:
    place = decoder_place(model, recipe)
    vae: Any = getattr(model.pipeline, "vae", None) if place is None else None
    config: dict[str, Any]
    if vae is not None:
        config, loaded = {"_class_name": type(vae).__name__, **vae.config}, 0
    elif place is not None and (place / "config.json").is_file():
        config, loaded = read_config(place / "config.json"), FLOAT * sum(_sizes(place, AUTOENCODER))
    else:
        return 0
    config = {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}
    if config.get("_class_name") not in CLASSES or config.get("latent_channels") != latent[0]:
        return loaded  # it is refused when it was loaded
    module = architecture(DECODER, config, {})
    return loaded + activations_of(module, [torch.empty(1, *latent, device="meta")]).on_cpu
