"""Integer parameters and the three pure operations on them: quantize, dequantize, fake_quantize.

Everything that rounds in the project rounds here, so that calibration, simulation and audit cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Scheme = Literal["symmetric", "affine"]

SMALLEST_SCALE = 2.0**-14
"""6.1e-5, the smallest normal fp16 number: below it an fp16 engine keeps fewer bits of the scale. Of activations."""

SMALLEST_WEIGHT_SCALE = 2.0**-42
"""2.3e-13. Of weights: fp16 programs multiply the product by at most two powers of two, each a normal fp16 number, in the place
of what the scale of a channel is below SMALLEST_SCALE; float32 programs hold such a scale as it is."""

FP16_LARGEST = 65504.0
"""What fp16 holds at most."""

FP16_BITS = 11
"""Significant bits of an fp16 number."""


WEIGHT_BITS = tuple(range(2, 9))
ACTIVATION_BITS = (*range(2, 9), 16)
"""16: int16, or uint16 with the zero_point 32768, which no device has anything between that and 8 bits for."""
ALLOWED_ACTIVATION_BITS = "2-8 or 16"


@dataclass(frozen=True)
class IntegerType:
    """A signed integer range. ``qmin``/``qmax`` belong to it, so that no range is recomputed elsewhere."""

    bits: int
    qmin: int
    qmax: int

    @property
    def is_wide(self) -> bool:
        """Whether its integers do not fit into a byte, so that products of bytes do not take them."""
        return self.bits > 8


def activation_type(bits: int) -> IntegerType:
    """Full two's-complement range, 2-8 bits (e.g. -128..127) or 16 (-32768..32767)."""
    return IntegerType(bits, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def weight_type(bits: int) -> IntegerType:
    """Weights: -127..127 at 8 bits (kernels of several targets allow no -128), the full range below (-8..7 at 4)."""
    return IntegerType(bits, -127 if bits == 8 else -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def fp16_exact(scale: Tensor, smallest: float = SMALLEST_SCALE) -> Tensor:
    """The nearest scale >= ``smallest`` with the significant bits of an fp16 number, float32, same shape.

    Core ML and fp16 engines store scales in fp16; rounding them here, before weights are rounded, keeps the
    simulation equal to the device. A power of two that takes a scale beyond fp16's exponents is not rounded away: it can be
    applied behind a product, exactly.
    """
    mantissa, exponent = scale.float().clamp_min(smallest).frexp()
    rounded: Tensor = (mantissa * 2**FP16_BITS).round_().ldexp(exponent - FP16_BITS)
    return rounded


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor | int, kind: IntegerType) -> Tensor:
    """clamp(round(x / scale) + zero_point, qmin, qmax), float32 holding integers; shapes broadcast. Ties to even."""
    return ((x / scale).round_() + zero_point).clamp_(kind.qmin, kind.qmax)


def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor | int) -> Tensor:
    """(q - zero_point) * scale, float32; shapes broadcast."""
    return (q - zero_point) * scale


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor | int, kind: IntegerType) -> Tensor:
    """dequantize(quantize(x)): float32, at most scale/2 from x inside the range."""
    return dequantize(quantize(x, scale, zero_point, kind), scale, zero_point)


def range_to_qparams(
    low: Tensor, high: Tensor, kind: IntegerType, scheme: Scheme, smallest: float = SMALLEST_SCALE
) -> tuple[Tensor, Tensor]:
    """fp16-exact scale and zero_point (int32) that cover [low, high], with zero exactly representable.

    Args:
        low, high: any equal shape, float32, low <= high.
        smallest: scale that may be had. Where all is zero any is exact, and SMALLEST_SCALE is taken: every target holds it.
    """
    import torch  # everything else here is said without it

    low, high = low.clamp_max(0), high.clamp_min(0)
    least = (low == high) * SMALLEST_SCALE
    if scheme == "symmetric":
        scale = fp16_exact(torch.maximum(low.abs() / -kind.qmin, high / kind.qmax).maximum(least), smallest)
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    scale = fp16_exact(((high - low) / (kind.qmax - kind.qmin)).maximum(least), smallest)
    zero_point = (kind.qmin - torch.round(low / scale)).clamp(kind.qmin, kind.qmax).to(torch.int32)
    return scale, zero_point


def qparams_to_range(scale: Tensor, zero_point: Tensor, kind: IntegerType) -> tuple[Tensor, Tensor]:
    """The float range [low, high] whose ends quantize to qmin and qmax exactly."""
    return (kind.qmin - zero_point) * scale, (kind.qmax - zero_point) * scale
