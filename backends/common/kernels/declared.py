"""How a value of a program's type is held in torch."""

from __future__ import annotations

import torch
from torch import Tensor


def as_declared(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A value rounded to the type that the program declares for it; fp16 is held as float32 that has been rounded to fp16."""
    if dtype == torch.float16:
        return value.to(torch.float32).to(torch.float16).to(torch.float32)  # float64 becomes fp16 so, only slower
    return value.to(dtype)
