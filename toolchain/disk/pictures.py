"""Pictures as PNG files."""

from __future__ import annotations

import io
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
