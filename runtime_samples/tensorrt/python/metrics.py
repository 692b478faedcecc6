"""Figures of the report: relative errors per step, PSNR of the final samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors_file import Floats

Doubles = npt.NDArray[np.float64]

SMALLEST_NORM = np.finfo(np.float64).tiny
SMALLEST_WIDTH = np.finfo(np.float32).tiny
SMALLEST_MSE = 1e-10
"""PSNR ends at 100 dB: JSON holds no infinity."""
PICTURE_CHANNELS = (1, 3)
PICTURE_AXES = 4


def relative_error(x: Floats, reference: Floats) -> Doubles:
    """||x - reference|| / ||reference|| per sample: (S, ...) and (S, ...) -> (S,); sums in float64."""
    want = reference.astype(np.float64).reshape(len(reference), -1)
    apart = x.astype(np.float64).reshape(len(x), -1) - want
    error: Doubles = np.sqrt(np.square(apart).sum(1)) / np.maximum(np.sqrt(np.square(want).sum(1)), SMALLEST_NORM)
    return error


def median(values: Doubles) -> float:
    """The middle value, or the mean of the middle two; NaN if any is."""
    if np.isnan(values).any():
        return math.nan
    ordered, half = sorted(float(value) for value in values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def to_unit(x: Floats, reference: Floats) -> Floats:
    """Samples (S, C, H, W) as pictures in [0, 1]; samples of other axes keep them.

    One or three channels are pixels in [-1, 1]; others, and other axes, take the range of their seed's ``reference``.
    """
    low: Floats | np.float32 = np.float32(-1)
    width: Floats | np.float32 = np.float32(2)
    if x.ndim != PICTURE_AXES or x.shape[1] not in PICTURE_CHANNELS:
        axes = tuple(range(1, reference.ndim))
        low = reference.min(axes, keepdims=True)
        width = np.maximum(reference.max(axes, keepdims=True) - low, SMALLEST_WIDTH)
    picture: Floats = np.clip((x - low) / width, 0, 1)
    return picture


def psnr(x: Floats, reference: Floats) -> Doubles:
    """dB per sample, data range 1: (S, C, ...) twice -> (S,). NaN stays NaN."""
    apart = to_unit(x, reference).astype(np.float64) - to_unit(reference, reference)
    mse = np.square(apart).reshape(len(x), -1).mean(1)
    result: Doubles = -10 * np.log10(np.maximum(mse, SMALLEST_MSE))
    return result


def plain(value: float) -> float | None:
    """A number for JSON: None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def figures(latents: Floats, fp32: Floats, simulation: Floats) -> dict[str, Any]:
    """``per_step`` and ``final`` of a report, of latents (N+1, S, C, ...)."""
    with np.errstate(all="ignore"):  # what is not finite becomes null
        rows = [
            {
                "step": k,
                "error_fp32": plain(median(relative_error(latents[k + 1], fp32[k + 1]))),
                "error_simulation": plain(median(relative_error(latents[k + 1], simulation[k + 1]))),
            }
            for k in range(len(latents) - 1)
        ]
        return {"per_step": rows, "final": {"psnr": [plain(value) for value in psnr(latents[-1], fp32[-1])]}}
