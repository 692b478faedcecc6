"""Operations that move numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels import moves
from dq_toolchain.backends.coreai.evaluator.registry import integer, integers, operation, word
from dq_toolchain.backends.coreai.ir import Operation


@operation("reshape")
def reshape(_op: Operation, x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape(integers(shape))


@operation("transpose")
def transpose(_op: Operation, x: Tensor, permutation: Tensor) -> Tensor:
    return x.permute(integers(permutation))


@operation("broadcast_in_dims")
def broadcast_in_dims(_op: Operation, x: Tensor, sizes: Tensor, axes: Tensor) -> Tensor:
    shape = list(x.shape)
    for axis, size in zip(integers(axes), integers(sizes), strict=True):
        shape[axis] = size
    return x.broadcast_to(shape)


@operation("tile")
def tile(_op: Operation, x: Tensor, times: Tensor) -> Tensor:
    """Of fewer axes: the innermost."""
    return x.tile(integers(times))


@operation("concat")
def concat(_op: Operation, axis: Tensor, *parts: Tensor) -> Tensor:
    return torch.cat(parts, integer(axis))


@operation("split")
def split(_op: Operation, x: Tensor, sizes: Tensor, axis: Tensor) -> tuple[Tensor, ...]:
    """``sizes``: one size of every part, or a list with the size of each."""
    return tuple(x.split(integers(sizes) if sizes.dim() else integer(sizes), integer(axis)))


@operation("slice")
def slice_(op: Operation, x: Tensor, starts: Tensor, ends: Tensor, strides: Tensor) -> Tensor:
    """Indices below zero count from the end, once, and are then kept inside."""
    if min(integers(strides)) < 1:
        raise NotImplementedError("a stride below 1")
    bounds = zip(integers(starts), integers(ends), integers(strides), strict=True)
    return x[tuple(slice(*one) for one in bounds)]


@operation("reverse")
def reverse(_op: Operation, x: Tensor, axes: Tensor) -> Tensor:
    return x.flip(integers(axes))


@operation("gather_nd")
def gather_nd(_op: Operation, x: Tensor, indices: Tensor) -> Tensor:
    """The last axis of ``indices`` addresses the first axes of x; negative ones count from the end."""
    return x[tuple(indices.to(torch.int64).unbind(-1))]


@operation("gather_along_axis")
def gather_along_axis(_op: Operation, x: Tensor, indices: Tensor, axis: Tensor) -> Tensor:
    return x.gather(integer(axis), indices.to(torch.int64) % x.shape[integer(axis)])


@operation("pad", padding_mode={"constant": None, **moves.SOURCES})
def pad(op: Operation, x: Tensor, padding: Tensor, value: Tensor) -> Tensor:
    return moves.pad(x, moves.pairs(integers(padding)), word(op, "padding_mode"), float(value))


@operation("interpolate", interpolation_mode={"nearest_neighbor": None})
def interpolate(_op: Operation, x: Tensor, shape: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    return moves.resize_nearest(x, integers(shape), scale.tolist(), offset.tolist())
