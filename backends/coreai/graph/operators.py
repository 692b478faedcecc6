"""Core AI's quantization operators, as coreai-torch converts them.

Scales are operands, not attributes: a step group's scale may be an input of the program.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.powers import factored
from dq_toolchain.backends.coreai.vendor import operators

PACKED_BITS = 4
"""Weights of at most so many bits are stored two in a byte."""
LOWEST = float(torch.finfo(torch.float16).min)
TABLE = torch.arange(-8, 8, dtype=torch.int8)


class CoreAIOperators:
    """Per-tensor quantize and dequantize, and weights with a scale per output channel.

    Args:
        half: the program computes in fp16, scales included. Scales are fp16 numbers, so none changes.
    """

    def __init__(self, half: bool) -> None:
        self.dtype = torch.float16 if half else torch.float32

    def quantized(self, x: Tensor, scale: float | Tensor, zero_point: int = 0) -> Tensor:
        s = scale if isinstance(scale, Tensor) else torch.tensor(scale, dtype=self.dtype)
        z = torch.tensor(zero_point, dtype=torch.int8)
        q = operators().quantize(x.to(self.dtype), s, torch.int8, z)
        y: Tensor = operators().dequantize(q, s, z)
        return y

    def scale_and_factors(self, scale: Tensor, lut: bool, half: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A table is looked up and then scaled per channel, so tables need nothing of their own."""
        if not half:
            return scale, ()
        of_weight = factored(scale)
        return of_weight.scale, of_weight.factors

    def keep_weight(self, layer: nn.Module, weight_q: Tensor, scale: Tensor, bits: int, lut: bool) -> None:
        """Tables are found by the converter by the names of their buffers."""
        layer.register_buffer("weight_scale", scale.to(self.dtype).reshape(-1, *[1] * (weight_q.dim() - 1)))
        if lut:
            layer.register_buffer("weight_indices", (weight_q.to(torch.int16) + 8).to(torch.uint8))
            layer.register_buffer("weight_lut", TABLE.reshape(*[1] * weight_q.dim(), len(TABLE), 1).clone())
        else:
            layer.register_buffer("weight_q", weight_q)

    def weight(self, layer: nn.Module, bits: int) -> Tensor:
        buffers = dict(layer.named_buffers(recurse=False))
        kind: torch.dtype = torch.int4 if bits <= PACKED_BITS else torch.int8  # type: ignore[attr-defined]
        if "weight_lut" in buffers:
            q, kind = operators().lut_to_dense(buffers["weight_indices"], buffers["weight_lut"], 0), torch.int8
        else:
            q = buffers["weight_q"]
        weight: Tensor = operators().constexpr_blockwise_shift_scale(q, buffers["weight_scale"], None, None, kind)
        return weight

    def apart(self, y: Tensor) -> Tensor:
        """Core AI multiplies constants first, whatever comes of it: 2^-14 * 2^-14 is 0. It does not look through a maximum."""
        return y.clamp(min=LOWEST)
