"""Integers to floats and back. Everything is float32: integers of at most 8 bits, scales and their exact products fit."""

from __future__ import annotations

import torch
from torch import Tensor


def quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, ends: tuple[int, int], axis: int | None = None
) -> Tensor:
    """clamp(round(x / scale) + zero_point); ties to even.

    Args:
        scale, zero_point: one number, or one per channel along ``axis``.
        ends: smallest and largest integer.
    """
    q = torch.round(x / _along(scale, axis, x))
    q = q if zero_point is None else q + _along(zero_point, axis, x)
    return q.clamp(*ends)


def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor | None, axis: int | None = None) -> Tensor:
    """(q - zero_point) * scale; scale and zero_point as in ``quantize``."""
    q = q.to(torch.float32)
    q = q if zero_point is None else q - _along(zero_point, axis, q)
    return q * _along(scale, axis, q)


def _along(parameter: Tensor, axis: int | None, like: Tensor) -> Tensor:
    """A scale or zero_point, per tensor or per channel, in a shape that broadcasts against ``like``."""
    parameter = parameter.to(torch.float32)
    if parameter.numel() == 1:
        return parameter.reshape(())
    assert axis is not None
    return parameter.reshape([-1 if i == axis % like.dim() else 1 for i in range(like.dim())])


def scale_blocks(data: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    """(data - offset) * scale, each with one number per block of equal size along every axis."""
    values = data.to(torch.float32)
    values = values if offset is None else values - per_element(offset, values)
    return values * per_element(scale, values)


def per_element(blocks: Tensor, like: Tensor) -> Tensor:
    """One number per block of equal size along every axis, repeated over its block where it does not broadcast."""
    blocks = blocks.to(torch.float32)
    for axis in range(like.dim()):
        if 1 < blocks.shape[axis] < like.shape[axis]:
            blocks = blocks.repeat_interleave(like.shape[axis] // blocks.shape[axis], axis)
    return blocks


def look_up(indices: Tensor, table: Tensor) -> Tensor:
    """``table``: (*blocks, entries); the block of an element chooses its table, the index the entry. Float32."""
    tables = table.to(torch.float32)
    for axis in range(indices.dim()):
        repeats = indices.shape[axis] // tables.shape[axis]
        tables = tables.repeat_interleave(repeats, axis) if tables.shape[axis] > 1 else tables
    tables = tables.expand(*indices.shape, tables.shape[-1])
    return tables.gather(-1, indices.to(torch.int64).unsqueeze(-1)).squeeze(-1)
