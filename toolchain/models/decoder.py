"""Latents to pictures, through the autoencoder of the pipeline that the network came from: for the eye, no figure depends on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.hub import STEM, is_hub_id
from dq_toolchain.toolchain.models.hub_part import find_part_on_hub
from dq_toolchain.toolchain.models.source import read_config

Decode = Callable[[Tensor], Tensor]
"""(S, C, h, w) float32 latents -> (S, 3, H, W) float32 pictures in [-1, 1]."""
Warn = Callable[[str], None]
AT_ONCE = 1
FOLDERS = ("vae", "vqvae")
CLASSES = ("AutoencoderKL", "VQModel", "AutoencoderTiny", "AutoencoderDC")


def find_decoder(folder: Path, channels: int, warn: Warn = lambda _line: None) -> Decode | None:
    """The decoder that comes with a model in a folder, None if none does.

    Args:
        channels: of the model's latents.
    Raises:
        ModelError: it cannot be read, or decodes other latents.
    """
    there = next((folder / name for name in FOLDERS if (folder / name).is_dir()), None)
    return None if there is None else _decoder(there, f"the decoder in {there}", channels, warn)


def load_decoder(model: str | Path, warn: Warn = lambda _line: None) -> Decode:
    """The decoder of a pipeline's folder or hub id, or of a folder that is an autoencoder itself.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    folder = Path(model)
    if not folder.exists() and is_hub_id(str(model)):
        folder = find_part_on_hub(str(model), FOLDERS, "--vae")
    folder = next((folder / name for name in FOLDERS if (folder / name).is_dir()), folder)
    return _decoder(folder, "--vae", None, warn)


def load_autoencoder(folder: Path, what: str, warn: Warn = lambda _line: None) -> Any:
    """The autoencoder of a folder, a module of diffusers in float32.

    Args:
        what: it is called in texts of errors.
    Raises:
        ModelError: it cannot be read, or is of none of CLASSES.
    """
    import diffusers  # takes seconds; only whoever wants pictures pays

    from dq_toolchain.toolchain.models.parts import FAULTS, load_part

    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{what}: {folder} is no autoencoder that can be read (it has no config.json); give the folder of a pipeline with vae/ "
            "saved as safetensors"
        )
    name = read_config(folder / "config.json").get("_class_name")
    if name not in CLASSES:
        raise ModelError(
            f"{what}: {folder} is no autoencoder that can be read (_class_name is {name!r}, allowed are {', '.join(CLASSES)}); "
            "give the folder of a pipeline with vae/ saved as safetensors"
        )
    try:
        vae = load_part(getattr(diffusers, name), folder, STEM, warn)
        unscaling(vae.config)
    except FAULTS as error:
        raise ModelError(
            f"{what}: {folder / 'config.json'} is not a valid {name} config ({error}); restore the file"
        ) from error
    return vae


def _decoder(folder: Path, what: str, channels: int | None, warn: Warn) -> Decode:
    from dq_toolchain.toolchain.models.parts import FAULTS

    vae = load_autoencoder(folder, what, warn)
    unscaled, own = unscaling(vae.config), vae.config.latent_channels
    if channels is not None and channels != own:
        raise ModelError(
            f"{what} takes latents with {own} channels, the model's have {channels}; restore the model's own"
        )

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        if latents.shape[1] != own:
            raise ModelError(
                f"{what}: its latents have {own} channels, the report's {latents.shape[1]}; give the autoencoder of the "
                "same pipeline"
            )
        try:
            found = torch.cat([vae.decode(unscaled(part)).sample.clamp(-1, 1) for part in latents.split(AT_ONCE)])
        except (*FAULTS, MemoryError) as error:
            raise ModelError(
                f"{what}: {folder} cannot decode ({' '.join(str(error).split())[:200]}); check its config.json"
            ) from error
        if not torch.isfinite(found).all():
            raise ModelError(f"{what}: {folder} decodes to NaN; take another autoencoder of the same latents")
        return found

    return decode


def unscaling(config: Any) -> Callable[[Tensor], Tensor]:
    """From the network's latents to the autoencoder's, as the pipelines of diffusers do it.

    ``latents_mean`` and ``latents_std`` as SDXL's (Playground 2.5 has them), ``shift_factor`` as SD3's; all is float32 here, so
    that ``force_upcast`` asks for nothing more. VQModel looks the latents up in its codebook itself.
    """
    scale, shift, rows = _numbers(config)
    if rows is None:
        return lambda latents: latents / scale + shift
    return lambda latents: latents * rows[1] / scale + rows[0]


def scaling(config: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The inverse of ``unscaling``: of what the autoencoder's encoder gives, and of a deviation, which is not shifted."""
    scale, shift, rows = _numbers(config)
    if rows is None:
        return lambda encoded: (encoded - shift) * scale, lambda deviation: deviation * scale
    return lambda encoded: (encoded - rows[0]) * scale / rows[1], lambda deviation: deviation * scale / rows[1]


def _numbers(config: Any) -> tuple[float, float, Tensor | None]:
    """scaling_factor, shift_factor, and (2, 1, C, 1, 1): means and deviations of the channels. Raises ValueError."""
    scale, shift = float(config.scaling_factor), float(config.get("shift_factor") or 0.0)
    if scale == 0 or not all(map(torch.isfinite, torch.tensor([scale, shift]))):
        raise ValueError(f"scaling_factor {scale}, shift_factor {shift}")
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is None or deviation is None:
        return scale, shift, None
    rows = torch.tensor([mean, deviation], dtype=torch.float32).view(2, 1, -1, 1, 1)
    if rows.shape[2] != config.latent_channels:
        raise ValueError(f"latents_mean has {rows.shape[2]} numbers for {config.latent_channels} channels")
    return scale, shift, rows
