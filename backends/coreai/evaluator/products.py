"""Operations that multiply and sum."""

from __future__ import annotations

from torch import Tensor

from dq_toolchain.backends.common.kernels import moves, parts, products
from dq_toolchain.backends.common.kernels.parts import Parts
from dq_toolchain.backends.coreai.evaluator.registry import integer, integers, operation
from dq_toolchain.backends.coreai.ir import Operation


@operation("conv2d")
def conv2d(_op: Operation, x: Tensor, weight: Tensor, stride: Tensor, dilation: Tensor, groups: Tensor) -> Tensor:
    return products.conv(x, weight, None, integers(stride), integers(dilation), integer(groups))


@operation("conv_transpose2d")
def conv_transpose2d(
    _op: Operation,
    x: Tensor,
    weight: Tensor,
    stride: Tensor,
    padding: Tensor,
    dilation: Tensor,
    output_pad: Tensor,
    groups: Tensor,
) -> Tensor:
    """``padding``: one number per side, cut off both ends of the result."""
    out = products.conv_transpose(
        x, weight, None, integers(stride), integers(dilation), integer(groups), integers(output_pad)
    )
    return moves.cut(out, [(n, n) for n in integers(padding)])


@operation("batch_matmul")
def batch_matmul(_op: Operation, x: Tensor, y: Tensor) -> Parts:
    return parts.matmul(x, y)


@operation("softmax")
def softmax(_op: Operation, x: Tensor, axis: Tensor) -> Parts:
    return parts.softmax(x, integer(axis))


@operation("reduce_mean")
def reduce_mean(_op: Operation, x: Tensor, axes: Tensor) -> Tensor:
    return products.mean(x, integers(axes), True)


@operation("reduce_sum")
def reduce_sum(_op: Operation, x: Tensor, axes: Tensor) -> Tensor:
    return products.total(x, integers(axes), True)


@operation("reduce_max")
def reduce_max(_op: Operation, x: Tensor, axes: Tensor) -> Tensor:
    return products.largest(x, integers(axes), True)


@operation("sum_pool_2d")
def sum_pool_2d(op: Operation, x: Tensor, kernel: Tensor, stride: Tensor, dilation: Tensor) -> Tensor:
    """A product with ones."""
    ones = x.new_ones(x.shape[1], 1, *integers(kernel))
    return products.conv(x, ones, None, integers(stride), integers(dilation), x.shape[1])
