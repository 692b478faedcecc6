"""Operations on single elements, by the name that most formats have for them. Everything stays in the type it comes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sin": torch.sin, "cos": torch.cos, "exp": torch.exp, "sqrt": torch.sqrt, "abs": torch.abs, "tanh": torch.tanh,
    "sigmoid": torch.sigmoid, "relu": torch.relu, "round": torch.round, "silu": F.silu,
}  # fmt: skip
BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "pow": lambda x, y: x**y,
    "maximum": torch.maximum, "minimum": torch.minimum, "equal": lambda x, y: x == y, "not_equal": lambda x, y: x != y,
    "greater": lambda x, y: x > y,
}  # fmt: skip


def gelu(x: Tensor, tanh: bool) -> Tensor:
    return F.gelu(x, approximate="tanh" if tanh else "none")


def truncated(x: Tensor) -> Tensor:
    """Towards zero, as a cast to an integer does."""
    return x.trunc() if x.is_floating_point() else x
