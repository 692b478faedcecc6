"""Weight scales that fp16 does not hold: what is missing is a power of two per channel, applied behind the product.

A scale of the artifact has the significant bits of an fp16 number and may be smaller than any. An fp16 program gets it times
2^e, and multiplies what comes out, in front of the bias, by 2^-e: exact, as both are powers of two. Per channel, not per
layer: channels may lie many octaves apart, and none is made larger than it has to be. Programs in float32 hold the scale
as it is and need nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_EXPONENT = -14
"""Of a normal fp16 number; hardware may take smaller ones for zero."""


@dataclass(frozen=True)
class Factored:
    """``scale`` (out,), at least 2^-14, and at most two factors (out,), powers of two from 2^-14 on; their product is the
    scale asked for. No factors where it was large enough."""

    scale: Tensor
    factors: tuple[Tensor, ...]

    @property
    def growth(self) -> Tensor:
        """(out,) by how much larger than the layer's output, without its bias, the product is."""
        return self.scale.new_ones(()) / product_of(self.factors)


def factored(scale: Tensor) -> Factored:
    """A scale (out,) float32 as an fp16 program takes it."""
    _, exponent = torch.frexp(scale)  # scale = m * 2^exponent, 1/2 <= m < 1
    missing = (SMALLEST_EXPONENT + 1 - exponent).clamp(min=0)
    factors = []
    for lower in range(0, int(missing.max()), -SMALLEST_EXPONENT):
        share = (missing - lower).clamp(0, -SMALLEST_EXPONENT)
        factors.append(torch.exp2(-share.to(torch.float32)))
    return Factored(torch.ldexp(scale, missing), tuple(factors))


def product_of(factors: tuple[Tensor, ...]) -> Tensor:
    """All factors multiplied, float32 (out,), or 1 if there are none."""
    total = torch.ones(())
    for factor in factors:
        total = total * factor
    return total
