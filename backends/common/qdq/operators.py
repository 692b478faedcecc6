"""The operators of one vendor's converter, as the network's form needs them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class WeightOperators(Protocol):
    """Unpacked weights, in the operators that a converter recognises."""

    def scale_and_factors(self, scale: Tensor, lut: bool, half: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A layer's scale (out,) as the weight gets it, 0-dim for one scale of all, and factors (out,) that its product
        is multiplied by.

        Args:
            lut: the weight becomes a table. half: in fp16, which does not hold every scale.
        """

    def keep_weight(self, layer: nn.Module, weight_q: Tensor, scale: Tensor, bits: int, lut: bool) -> None:
        """Register what ``weight`` needs as buffers of ``layer``.

        Args:
            weight_q: int8, shape of the weight. scale: (out,) or 0-dim, from ``scale_and_factors``.
        """

    def weight(self, layer: nn.Module, bits: int) -> Tensor:
        """The weight of a layer, unpacked to float."""

    def apart(self, y: Tensor) -> Tensor:
        """``y`` as it is, between two factors that the converter would otherwise multiply with each other: fp16 does not
        hold their product."""


class Operators(WeightOperators, Protocol):
    """quantize and dequantize, too."""

    def quantized(self, x: Tensor, scale: float | Tensor, zero_point: int = 0) -> Tensor:
        """dequantize(quantize(x)) in int8. ``scale``: a number, or a 0-dim tensor that the program computes."""
