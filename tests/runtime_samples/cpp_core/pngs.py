"""PNG files by hand, in forms that Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Of an interlaced file: first row and column, and their steps."""
RGB = 2


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def head(width: int, height: int, depth: int = 8, kind: int = RGB, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))


def file_of(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


def rows(pixels: NDArray[np.uint8]) -> bytes:
    """Without a filter."""
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def rgb(pixels: NDArray[np.uint8], extra: Iterable[bytes] = (), level: int = 6) -> bytes:
    """(H, W, 3), with more chunks before the pixels. ``level``: 0 is without compression."""
    height, width, _ = pixels.shape
    return file_of(head(width, height), *extra, chunk(b"IDAT", zlib.compress(rows(pixels), level)))


def interlaced(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3), as Adam7."""
    height, width, _ = pixels.shape
    data = b"".join(rows(pixels[y::dy, x::dx]) for y, x, dy, dx in PASSES if pixels[y::dy, x::dx].size)
    return file_of(head(width, height, interlaced=True), chunk(b"IDAT", zlib.compress(data)))
