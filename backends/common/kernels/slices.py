"""Large results in parts: float64 twice the size of what is kept would fill the memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels.declared import as_declared

MOST = 2**24
"""Elements that are held in float64 at once."""


def in_slices(function: Callable[..., Tensor], dtype: torch.dtype, *operands: Tensor) -> Tensor:
    """``function`` of tensors whose first axis is one of independent parts, rounded to ``dtype`` part by part.

    Args:
        operands: (parts, ...) each. The result is (parts, ...) too, and equal to that of all parts at once.
    """
    parts = [
        as_declared(function(*part), dtype) for part in zip(*(operand.split(1) for operand in operands), strict=True)
    ]
    return torch.cat(parts)
