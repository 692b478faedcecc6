"""Operations that multiply and sum."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels import moves, products
from dq_toolchain.backends.common.kernels.slices import MOST, in_slices
from dq_toolchain.backends.coreai.evaluator.registry import DTYPES, integer, integers, operation
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
def batch_matmul(op: Operation, x: Tensor, y: Tensor) -> Tensor:
    lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    shape = (*lead, x.shape[-2], y.shape[-1])
    if prod(shape) <= MOST:
        return products.matmul(x, y)
    parts = (one.expand(*lead, *one.shape[-2:]).reshape(-1, *one.shape[-2:]) for one in (x, y))
    return in_slices(products.matmul, DTYPES[op.out.dtype], *parts).reshape(shape)


@operation("softmax")
def softmax(op: Operation, x: Tensor, axis: Tensor) -> Tensor:
    along = integer(axis) % x.dim()
    if x.numel() <= MOST:
        return products.softmax(x, along)
    parts = x.reshape(-1, *x.shape[along:])
    return in_slices(lambda part: products.softmax(part, 1), DTYPES[op.out.dtype], parts).reshape(x.shape)


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
