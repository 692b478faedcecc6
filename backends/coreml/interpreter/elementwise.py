"""Operations on single elements. Source: MIL operation set, elementwise_unary, elementwise_binary and activation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dq_toolchain.backends.coreml.interpreter.registry import OPERATIONS, operation

OPERATIONS.update(
    add=lambda x, y: x + y, sub=lambda x, y: x - y, mul=lambda x, y: x * y, real_div=lambda x, y: x / y,
    pow=lambda x, y: x**y, maximum=lambda x, y: torch.maximum(x, y), minimum=lambda x, y: torch.minimum(x, y),
    equal=lambda x, y: x == y, not_equal=lambda x, y: x != y, greater=lambda x, y: x > y, less=lambda x, y: x < y,
    greater_equal=lambda x, y: x >= y, less_equal=lambda x, y: x <= y,
    sin=lambda x: x.sin(), cos=lambda x: x.cos(), exp=lambda x: x.exp(), sqrt=lambda x: x.sqrt(), abs=lambda x: x.abs(),
    square=lambda x: x.square(), tanh=lambda x: x.tanh(), sigmoid=lambda x: x.sigmoid(), relu=lambda x: x.relu(),
    round=lambda x: x.round(), floor=lambda x: x.floor(), identity=lambda x: x,
    silu=lambda x: F.silu(x), select=lambda cond, a, b: torch.where(cond, a, b),
)  # fmt: skip


@operation("cast")
def cast(x: Tensor, dtype: str) -> Tensor:
    """To the declared type, which the interpreter applies to every result; integers truncate."""
    return x.trunc() if dtype.startswith(("int", "uint")) and x.is_floating_point() else x


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
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")
