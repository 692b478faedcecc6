"""Sides of latents that a network takes: what its config says before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dq_toolchain.toolchain.errors import ModelError

ANY_SIZE = ("UNet2DConditionModel",)
"""Networks that round up where they halve an odd side, and resize to the sizes on the way back."""
PACKED = {
    "FluxTransformer2DModel": 2,
    "Flux2Transformer2DModel": 1,
    "ZImageTransformer2DModel": 2,
    "QwenImageTransformer2DModel": 2,
}
"""Latents per token, per side, where the config's ``patch_size`` says something else."""


def divisor_of(config: Mapping[str, Any]) -> int:
    """What both sides of a latent have to be a multiple of: a network's total downsampling, a transformer's patch; 1 where the
    config has neither in a form that the network could be built from."""
    blocks, patch = config.get("block_out_channels"), config.get("patch_size")
    if config["_class_name"].startswith("UNet2D"):
        return int(2 ** (len(blocks) - 1)) if isinstance(blocks, list | tuple) and blocks else 1
    return PACKED.get(config["_class_name"], patch if isinstance(patch, int) and patch > 0 else 1)


def not_a_multiple(config: Mapping[str, Any], sides: tuple[int, ...]) -> str | None:
    """What is wrong with a latent's height and width, and which sizes next to it are right; None if nothing is."""
    divisor = divisor_of(config)
    if not any(side % divisor for side in sides):
        return None
    lower, upper = ([max(1, side // divisor + more) * divisor for side in sides] for more in (0, 1))
    upper = [near if side % divisor == 0 else far for side, near, far in zip(sides, lower, upper, strict=True)]
    listed = " or ".join(f"{height}x{width}" for height, width in dict.fromkeys([tuple(lower), tuple(upper)]))
    what = "downsampling" if config["_class_name"].startswith("UNet2D") else "patches"
    return (
        f"latents of {sides[0]}x{sides[1]} are no multiple of {divisor}, the network's {what}; allowed are multiples, such as "
        f"{listed}"
    )


def check_sides(config: Mapping[str, Any], sides: tuple[int, int], where: str) -> None:
    """Raise ModelError for a size with which the network itself does not work."""
    fault = not_a_multiple(config, sides)
    if fault is not None and config["_class_name"] not in ANY_SIZE:
        raise ModelError(f"{where}: sample_size is {list(sides)}: {fault}; set it there")
