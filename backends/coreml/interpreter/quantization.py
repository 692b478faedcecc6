"""Integers to floats and back. Source: MIL operation set, quantization (iOS17) and compression (iOS18)."""

from __future__ import annotations

from torch import Tensor

from dq_toolchain.backends.common.kernels import quantization
from dq_toolchain.backends.coreml.interpreter.registry import integer, operation

ENDS = {"int8": (-128, 127), "uint8": (0, 255)}


@operation("quantize")
def quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: Tensor | None = None
) -> Tensor:
    return quantization.quantize(input, scale, zero_point, ENDS[output_dtype], _axis(axis))


@operation("dequantize")
def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    return quantization.dequantize(input, scale, zero_point, _axis(axis))


def _axis(axis: Tensor | None) -> int | None:
    return None if axis is None else integer(axis)


@operation("constexpr_affine_dequantize")
def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor) -> Tensor:
    return dequantize(quantized_data, scale, zero_point, axis)


@operation("constexpr_blockwise_shift_scale")
def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    return quantization.scale_blocks(data, scale, offset)


@operation("constexpr_lut_to_dense")
def constexpr_lut_to_dense(indices: Tensor, lut: Tensor, vector_axis: Tensor | None = None) -> Tensor:
    """``lut``: (*blocks, entries, 1)."""
    return quantization.look_up(indices, lut.squeeze(-1))
