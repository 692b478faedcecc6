"""What the HTP makes of sums of integer products: measured on Qualcomm's emulator, v73 to v81 alike.

With 8-bit activations a result is the sum, and the bias as an integer in units of input and weight, times the ratio of these
units to the result's, rounded. With 16-bit activations the eight low bits of the sum are dropped before (rounded down), and those
of the bias too (towards zero). So a result is up to 512 units of input times weight too small, or 256 too large: less than a step
of 65,536 with weights of 8 bits, and up to some 13 steps with weights of 4 bits, whose unit is 18 times as large. Export makes
the mean of it zero (``graph.biases``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.backends.qnn.graph.biases import DROPPED


@dataclass(frozen=True)
class Sums:
    """Integer products of one operation, before they are brought to the result's scale.

    Attributes:
        sums: float64 integers, of operands without their zero points. bias: float64 integers that can be added to them, or None.
        ratio: float64 that multiplies both: (scale of input * scale of weight) / scale of result.
        wide: activations have 16 bits.
    """

    sums: Tensor
    bias: Tensor | None
    ratio: Tensor
    wide: bool

    @property
    def exact(self) -> Tensor:
        """Results in steps of their type, float64, not rounded; without a zero point."""
        return (self.sums if self.bias is None else self.sums + self.bias) * self.ratio

    @property
    def as_computed(self) -> Tensor:
        """The same with the bits dropped that the HTP drops."""
        return self.computed_with(self.bias)

    @property
    def neighbours(self) -> tuple[Tensor, ...]:
        """What else may be: the compiler divides biases in a precision of its own, and a unit decides where bits are dropped."""
        if self.bias is None or not self.wide:
            return (self.as_computed,)
        return tuple(self.computed_with(self.bias + unit) for unit in (-1, 0, 1))

    def computed_with(self, bias: Tensor | None) -> Tensor:
        if not self.wide:
            return self.exact
        kept = torch.floor(self.sums / DROPPED)
        if bias is not None:
            kept = kept + torch.trunc(bias / DROPPED)
        return kept * DROPPED * self.ratio
