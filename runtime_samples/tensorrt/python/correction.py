"""What stands around the network in every step: a shift of what it is given, a scale and a shift of what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors_file import Floats

KEYS = ("input_shift", "output_scale", "output_shift")


@dataclass(frozen=True)
class Correction:
    """Numbers by step and channel, each (N, C) float32."""

    input_shift: Floats
    output_scale: Floats
    output_shift: Floats

    @property
    def channels(self) -> int:
        return int(self.input_shift.shape[1])

    def before(self, x: Floats, k: int) -> Floats:
        """What the network is given in step k: (1, C, ...), already scaled by the table -> the same shape."""
        return x + _along_channels(self.input_shift[k], x)

    def after(self, f: Floats, k: int) -> Floats:
        """What the sampler is given in step k: (1, C, ...) output after guidance -> the same shape."""
        return f * _along_channels(self.output_scale[k], f) + _along_channels(self.output_shift[k], f)


def _along_channels(row: Floats, x: Floats) -> Floats:
    """(C,) -> (C, 1, ...): as it is multiplied with or added to x, (1, C, ...)."""
    return row.reshape(-1, *(1,) * (x.ndim - 2))


def read_correction(data: Any, steps: int) -> Correction:
    """``table.correction`` of bundle.json. Raises ValueError: other keys, not ``steps`` rows of as many finite numbers."""
    if not isinstance(data, dict) or set(data) != set(KEYS):
        got = list(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"correction must have exactly the keys {', '.join(KEYS)}, got {got}")
    found = [_rows(data[key], f"correction.{key}", steps) for key in KEYS]
    if len({array.shape for array in found}) != 1:
        raise ValueError(
            f"correction must have rows of as many numbers each, got {sorted({array.shape[1] for array in found})}"
        )
    return Correction(*found)


def _rows(rows: Any, what: str, steps: int) -> Floats:
    # NumPy would take text, booleans and nested lists for numbers
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError(f"{what} must be a list of lists of numbers")
    if any(isinstance(value, bool) or not isinstance(value, int | float) for row in rows for value in row):
        raise ValueError(f"{what} must hold numbers only")
    if len(rows) != steps:
        raise ValueError(f"{what} has {len(rows)} rows, one for each of {steps} steps is needed")
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"{what} must have rows of as many numbers each, 1 or more, got {sorted(lengths)}")
    with np.errstate(over="ignore"):  # refused below
        found = np.asarray(rows, np.float64).astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"{what} has a number that is not finite in float32")
    return found
