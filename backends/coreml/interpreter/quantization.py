"""Integers to floats and back. Source: MIL operation set, quantization (iOS17) and compression (iOS18)."""

from __future__ import annotations

import torch
from torch import Tensor

from dq_toolchain.backends.coreml.interpreter.registry import integer, operation

ENDS = {"int8": (-128, 127), "uint8": (0, 255)}


def _along(parameter: Tensor, axis: Tensor | None, like: Tensor) -> Tensor:
    """A scale or zero_point, per tensor or per channel, in a shape that broadcasts against ``like``."""
    parameter = parameter.to(torch.float32)
    if parameter.numel() == 1:
        return parameter.reshape(())
    assert axis is not None
    where = integer(axis) % like.dim()
    return parameter.reshape([-1 if i == where else 1 for i in range(like.dim())])


@operation("quantize")
def quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: Tensor | None = None
) -> Tensor:
    """clamp(round(x / scale) + zero_point); ties to even."""
    q = torch.round(input / _along(scale, axis, input))
    q = q if zero_point is None else q + _along(zero_point, axis, input)
    return q.clamp(*ENDS[output_dtype])


@operation("dequantize")
def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    q = input.to(torch.float32)
    q = q if zero_point is None else q - _along(zero_point, axis, q)
    return q * _along(scale, axis, q)


@operation("constexpr_affine_dequantize")
def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor) -> Tensor:
    return dequantize(quantized_data, scale, zero_point, axis)


@operation("constexpr_blockwise_shift_scale")
def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    values = data.to(torch.float32)
    values = values if offset is None else values - _per_element(offset, values)
    return values * _per_element(scale, values)


def _per_element(blocks: Tensor, like: Tensor) -> Tensor:
    """One number per block of equal size along every axis, repeated over its block."""
    blocks = blocks.to(torch.float32)
    for axis in range(like.dim()):
        if 1 < blocks.shape[axis] < like.shape[axis]:
            blocks = blocks.repeat_interleave(like.shape[axis] // blocks.shape[axis], axis)
    return blocks


@operation("constexpr_lut_to_dense")
def constexpr_lut_to_dense(indices: Tensor, lut: Tensor, vector_axis: Tensor | None = None) -> Tensor:
    """``lut``: (*blocks, entries, 1); the block of an element chooses its table, the index the entry."""
    tables = lut.squeeze(-1).to(torch.float32)
    for axis in range(indices.dim()):
        repeats = indices.shape[axis] // tables.shape[axis]
        tables = tables.repeat_interleave(repeats, axis) if tables.shape[axis] > 1 else tables
    tables = tables.expand(*indices.shape, tables.shape[-1])
    return tables.gather(-1, indices.to(torch.int64).unsqueeze(-1)).squeeze(-1)
