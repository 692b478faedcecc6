"""Core ML's quantization operators, and what its converter needs in fp16."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.powers import SMALLEST_EXPONENT, factored
from dq_toolchain.backends.common.qdq.layer import other_than_one, table_scale
from dq_toolchain.backends.common.vendors import decomposed


class MILOperators:
    """torch's own quantize and dequantize, which coremltools recognises.

    A table keeps one weight scale, a power of two, for the whole tensor, and the result is multiplied by the rest: the
    Neural Engine wants a table of integers with the scale of a channel behind the product.
    """

    def quantized(self, x: Tensor, scale: float | Tensor, zero_point: int = 0) -> Tensor:
        ops = decomposed()
        q = ops.quantize_per_tensor(x, scale, zero_point, -128, 127, torch.int8)
        y: Tensor = ops.dequantize_per_tensor(q, scale, zero_point, -128, 127, torch.int8)
        return y

    def scale_and_factors(self, scale: Tensor, lut: bool, half: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        common = table_scale(scale) if lut else scale
        if not half:
            return common, other_than_one(scale / common) if lut else ()
        if not lut:
            of_weight = factored(scale)
            return of_weight.scale, of_weight.factors
        common = common.clamp_min(2.0**SMALLEST_EXPONENT)
        rest = factored(scale / common)
        return common, other_than_one(rest.scale, *rest.factors)

    def keep_weight(self, layer: nn.Module, weight_q: Tensor, scale: Tensor, bits: int, lut: bool) -> None:
        channels = len(weight_q)
        layer.register_buffer("weight_q", weight_q)
        layer.register_buffer("weight_scale", scale.expand(channels).clone())
        layer.register_buffer("weight_zero", torch.zeros(channels, dtype=torch.int64))

    def weight(self, layer: nn.Module, bits: int) -> Tensor:
        q, scale, zero = (layer.get_buffer(f"weight_{name}") for name in ("q", "scale", "zero"))
        weight: Tensor = decomposed().dequantize_per_channel(
            q, scale, zero, 0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, torch.int8
        )
        return weight

    def apart(self, y: Tensor) -> Tensor:
        """coremltools leaves the factors as they are."""
        return y


OPERATORS = MILOperators()
