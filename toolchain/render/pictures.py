"""Pictures inside of a page: side by side, as PNG, in the text itself."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from dq_toolchain.toolchain.metrics import PICTURE_AXES, PICTURE_CHANNELS


def strip(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images (S, C, H, W) in [0, 1] side by side, eight to a row: (rows, columns) or (rows, columns, 3) uint8.

    Latents of other than one or three channels show their first channel; samples of other axes, such as (C, T), are shown as a
    picture with a row per channel.
    """
    if images.dim() != PICTURE_AXES:
        images = images.flatten(2).unsqueeze(1)
    if images.shape[1] not in PICTURE_CHANNELS:
        images = images[:, :1]
    count, channels, height, width = images.shape
    across = min(8, count)
    down = -(-count // across)
    sheet = np.zeros((down * (height + 1) - 1, across * (width + 1) - 1, channels), np.uint8)
    for index, image in enumerate((images * 255).round().byte().permute(0, 2, 3, 1).numpy()):
        top, left = index // across * (height + 1), index % across * (width + 1)
        sheet[top : top + height, left : left + width] = image
    return sheet[:, :, 0] if channels == 1 else sheet


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(pixels)
    factor = max(1, 560 // picture.width)
    picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def data_uri(data: bytes, kind: str) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")
