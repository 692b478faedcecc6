"""Operations on single elements. Source of all operations: the docstrings of coreai-core's dialect, _coreai_ops_gen.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels import elementwise
from dq_toolchain.backends.coreai.evaluator.registry import OPERATIONS, Implementation, operation, word
from dq_toolchain.backends.coreai.ir import Operation


def _without_op(function: Callable[..., Tensor]) -> Implementation:
    return lambda _op, *operands: function(*operands)


OPERATIONS.update({name: _without_op(function) for name, function in elementwise.UNARY.items()})
OPERATIONS.update({name: _without_op(function) for name, function in elementwise.BINARY.items()})
OPERATIONS.update(
    rsqrt=lambda _op, x: x.double().rsqrt(), log=lambda _op, x: x.log(),
    where=lambda _op, condition, x, y: torch.where(condition, x, y),
)  # fmt: skip


@operation("divide")
def divide(_op: Operation, x: Tensor, y: Tensor) -> Tensor:
    """Integers truncate."""
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


@operation("cast")
def cast(op: Operation, x: Tensor) -> Tensor:
    """To the declared type, which the evaluator applies to every result."""
    return x if op.out.dtype in ("f16", "f32", "i1") else elementwise.truncated(x)


@operation("gelu", approximate={"none": False, "tanh": True})
def gelu(op: Operation, x: Tensor) -> Tensor:
    return elementwise.gelu(x, word(op, "approximate") == "tanh")
