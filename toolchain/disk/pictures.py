"""Pictures as PNG files."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.toolchain.disk.files import write_bytes
from dq_toolchain.toolchain.errors import RecipeError, ToolchainError

if TYPE_CHECKING:
    from torch import Tensor


def check_png(path: Path) -> None:
    """Raise RecipeError unless a PNG file can be written there, as far as can be told before."""
    if path.suffix.lower() != ".png":
        raise RecipeError(f"--out must be the name of a PNG file, such as picture.png, got {str(path)!r}")
    if not path.parent.is_dir():
        raise RecipeError(f"--out: there is no folder {path.parent}; make it, or choose another")
    if path.is_dir():
        raise RecipeError(f"--out: {path} is a folder; choose the name of a file")


SIGNATURE = b"\x89PNG\r\n\x1a\n"
PLAIN = {0: "gray", 2: "RGB", 4: "gray with alpha", 6: "RGB with alpha"}
"""Colour types of PNG (ISO/IEC 15948) that are read, with 8 bits."""


def read_png(path: Path, height: int, width: int) -> Tensor:
    """A picture of this size: (3, H, W) uint8; gray becomes three equal channels.

    Raises:
        RecipeError: no PNG of 8 bits, of another size, or with pixels that are not opaque.
    """
    import numpy
    import torch
    from PIL import Image

    try:
        with path.open("rb") as file:
            head = file.read(26)
        if head[:8] != SIGNATURE or len(head) < 26:
            raise RecipeError(f"--image: {path} is no PNG file; save the picture as one")
        found_width, found_height, depth, kind = struct.unpack(">IIBB", head[16:26])
        if depth != 8 or kind not in PLAIN:
            raise RecipeError(
                f"--image: {path} has {depth} bits per channel, colour type {kind}; allowed are 8 bits, gray or RGB; convert it"
            )
        if (found_height, found_width) != (height, width):
            raise RecipeError(
                f"--image: {path} is {found_width} x {found_height} pixels, the model takes {width} x {height}; scale or crop it"
            )
        rows = numpy.asarray(Image.open(path).convert("RGBA"))
    except (OSError, SyntaxError, ValueError) as error:
        raise RecipeError(
            f"--image: {path} cannot be read: {' '.join(str(error).split())[:200]}; save it again"
        ) from error
    if (rows[..., 3] != 255).any():
        raise RecipeError(f"--image: {path} has pixels that are not opaque; put it on a background first")
    return torch.from_numpy(rows[..., :3].copy()).permute(2, 0, 1)


def write_png(path: Path, pixels: Tensor) -> None:
    """Write a picture, whole or not at all.

    Args:
        pixels: (1 or 3, H, W) uint8.
    Raises:
        ToolchainError: it cannot be written.
    """
    from PIL import Image

    if pixels.shape[0] not in (1, 3):
        raise ToolchainError(f"a picture has 1 or 3 channels, got {pixels.shape[0]}; this model makes no pictures")
    rows = pixels[0] if pixels.shape[0] == 1 else pixels.permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(rows.contiguous().numpy()).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())
