"""Operations on single elements. Source: MIL operation set, elementwise_unary, elementwise_binary and activation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels import elementwise
from dq_toolchain.backends.coreml.interpreter.registry import OPERATIONS, operation


def _of_x(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x)


def _of_x_and_y(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: function(x, y)


OPERATIONS.update({name: _of_x(function) for name, function in elementwise.UNARY.items()})
OPERATIONS.update({name: _of_x_and_y(function) for name, function in elementwise.BINARY.items()})
OPERATIONS.update(
    real_div=lambda x, y: x / y, less=lambda x, y: x < y, greater_equal=lambda x, y: x >= y,
    less_equal=lambda x, y: x <= y, square=lambda x: x.square(), floor=lambda x: x.floor(), identity=lambda x: x,
    select=lambda cond, a, b: torch.where(cond, a, b),
)  # fmt: skip


@operation("cast")
def cast(x: Tensor, dtype: str) -> Tensor:
    """To the declared type, which the interpreter applies to every result; integers truncate."""
    return elementwise.truncated(x) if dtype.startswith(("int", "uint")) else x


@operation("clip")
def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return x.clamp(float(alpha), float(beta))


@operation("rsqrt")
def rsqrt(x: Tensor, epsilon: Tensor | float = 1e-12) -> Tensor:
    return 1 / (x + float(epsilon)).sqrt()


@operation("inverse")
def inverse(x: Tensor, epsilon: Tensor | float = 1e-4) -> Tensor:
    """MIL's default epsilon is as large as this."""
    return 1 / (x + float(epsilon))


@operation("gelu")
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    return elementwise.gelu(x, mode == "TANH_APPROXIMATION")
