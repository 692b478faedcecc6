"""Latents to pictures, through the autoencoder of the pipeline that the network came from: for the eye, no figure depends on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.hub import find_on_hub, is_hub_id

Decode = Callable[[Tensor], Tensor]
"""(S, C, h, w) float32 latents -> (S, 3, H, W) float32 pictures in [-1, 1]."""
AT_ONCE = 1


def find_decoder(folder: Path) -> Decode | None:
    """The decoder that comes with a model in a folder, None if none does. Raises ModelError: it cannot be read."""
    return load_decoder(folder) if (folder / "vae" / "config.json").is_file() else None


def load_decoder(model: str | Path) -> Decode:
    """The decoder of a pipeline's folder or hub id, or of a folder that is an autoencoder itself.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from diffusers import AutoencoderKL  # takes seconds; only whoever wants pictures pays

    folder = Path(model)
    if not folder.is_dir() and is_hub_id(str(model)):
        folder = find_on_hub(str(model), None)
    folder = folder / "vae" if (folder / "vae" / "config.json").is_file() else folder
    try:
        vae = AutoencoderKL.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise ModelError(
            f"--vae: {folder} is no autoencoder that can be read ({' '.join(str(error).split())[:200]}); give the folder of a "
            "pipeline with vae/ saved as safetensors"
        ) from error
    vae.eval().requires_grad_(False)
    scale, shift = vae.config.scaling_factor, vae.config.get("shift_factor") or 0.0

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        if latents.shape[1] != vae.config.latent_channels:
            raise ModelError(
                f"--vae: its latents have {vae.config.latent_channels} channels, the report's {latents.shape[1]}; give the "
                "autoencoder of the same pipeline"
            )
        return torch.cat([vae.decode(part / scale + shift).sample.clamp(-1, 1) for part in latents.split(AT_ONCE)])

    return decode
