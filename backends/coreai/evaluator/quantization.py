"""Integers to floats and back."""

from __future__ import annotations

import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels import quantization
from dq_toolchain.backends.coreai.evaluator.registry import integer, operation
from dq_toolchain.backends.coreai.ir import Operation

ENDS = {"si8": (-128, 127), "ui8": (0, 255), "si4": (-8, 7), "ui4": (0, 15)}


@operation("quantize")
def quantize(op: Operation, x: Tensor, scale: Tensor, offset1: Tensor, offset2: Tensor, axis: Tensor) -> Tensor:
    """The quotient is float32 in fp16 programs too: it is not rounded to fp16."""
    x = x - offset2 if bool(offset2.any()) else x
    return quantization.quantize(x, scale, offset1, ENDS[op.out.dtype], _axis(axis))


@operation("dequantize")
def dequantize(_op: Operation, q: Tensor, scale: Tensor, offset1: Tensor, offset2: Tensor, axis: Tensor) -> Tensor:
    out = quantization.dequantize(q, scale, offset1, _axis(axis))
    return out + offset2 if bool(offset2.any()) else out


def _axis(axis: Tensor) -> int | None:
    """None where all axes are listed: one number for the whole tensor."""
    return integer(axis) if axis.numel() == 1 else None


@operation("blockwise_shift_scale")
def blockwise_shift_scale(_op: Operation, data: Tensor, scale: Tensor, offset1: Tensor, offset2: Tensor) -> Tensor:
    out = quantization.scale_blocks(data, scale, offset1 if bool(offset1.any()) else None)
    return out + quantization.per_element(offset2, out) if bool(offset2.any()) else out


@operation("lut_to_dense")
def lut_to_dense(_op: Operation, indices: Tensor, lut: Tensor, axis: Tensor) -> Tensor:
    """``lut``: (*blocks, entries, numbers per entry); the numbers of an entry follow each other along ``axis``."""
    along = integer(axis) % indices.dim()
    found = torch.stack([quantization.look_up(indices, part) for part in lut.unbind(-1)], along + 1)
    return found.flatten(along, along + 1)
