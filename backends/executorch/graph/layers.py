"""Convolutions and Linear with the artifact's integers, in the two forms that XNNPACK executes in int8.

A Conv1d is a Conv2d over pictures of height 1, which is what XNNPACK has: ``OfRow`` turns its rows into such pictures and back.
XNNPACK's static int8 kernels give int8 results only. Its dynamic ones give float results but take their scale and
zero_point from the smallest and largest input value; `SentinelLayer` dictates these two values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dq_toolchain.backends.common.vendors import decomposed
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.quant.qparams import activation_type, qparams_to_range

EPSILON = 1.1920928955078125e-07
"""What executorch expects in choose_qparams; XNNPACK itself has none."""

BEYOND = 1e38
"""Larger than any end of a range: scales are below 65504 and ranges at most 255 scales wide."""


def range_table(scale: Tensor, zero_point: Tensor) -> Tensor:
    """(G, L) scale and zero_point -> (G, 2L) float32: lo, hi of every site, whose ends quantize to -128 and 127."""
    low, high = qparams_to_range(scale, zero_point, activation_type(8))
    return torch.stack([low, high], dim=-1).flatten(1).to(torch.float32)


def xnnpack_qparams(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """What XNNPACK makes of a smallest and a largest value: scale float32 and zero_point int32, shapes of ``low``.

    Source: XNNPACK, src/xnnpack/quantization.h, xnn_f32_qd8_asymmetric_quantization_params; float32 throughout.
    """
    low, high = low.to(torch.float32).clamp_max(0), high.to(torch.float32).clamp_min(0)
    # Tensor by tensor: torch computes number / tensor as a product with the reciprocal, one rounding more.
    inverse = torch.where(low == high, 1.0, torch.full_like(low, 255.0) / (high - low))
    from_low, from_high = -128 + low * inverse, 127 + high * inverse
    exact = torch.where(from_low + from_high > 0, -128 - low * inverse, 127 - high * inverse)
    return 1 / inverse, torch.round(exact.clamp(-128, 127)).to(torch.int32)


class RangesInput:
    """The ranges tensor of the forward call in progress, (1, 2L), shared by all layers of one program."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._pictures: Tensor | None = None

    def set(self, ranges: Tensor) -> None:
        """Give all layers the ranges of this call.

        Convolutions get a copy of four dimensions that went through a mean over one pixel, which changes nothing but
        marks it, and so what is clamped with it, as channels-last. Without that, XNNPACK's layout pass transposes every
        picture to meet its range, and gives wrong shapes where the clamp follows the concatenation.
        """
        self._rows = ranges
        self._pictures = ranges.reshape(1, -1, 1, 1).mean([2, 3], keepdim=True)

    def ends(self, index: int, dims: int) -> tuple[Tensor, Tensor]:
        """lo and hi of one site, (1, 1, 1, 1) for pictures, otherwise (1, 1), which broadcasts against rows."""
        ranges = self._pictures if dims == 4 else self._rows
        assert ranges is not None
        return ranges[:, 2 * index : 2 * index + 1], ranges[:, 2 * index + 1 : 2 * index + 2]


@dataclass(frozen=True)
class Geometry:
    """How a layer is applied: its convolution arguments (None for Linear) and the shape of its input.

    Those of a Conv1d are of the Conv2d of height 1 that stands for it.
    """

    input_shape: tuple[int, ...]
    convolution: tuple[tuple[int, ...], tuple[int, ...] | str, tuple[int, ...], int] | None

    @classmethod
    def of(cls, layer: nn.Conv1d | nn.Conv2d | nn.Linear, input_shape: Sequence[int]) -> Geometry:
        if isinstance(layer, nn.Linear):
            return cls(tuple(input_shape), None)
        if isinstance(layer, nn.Conv2d):
            return cls(tuple(input_shape), (layer.stride, layer.padding, layer.dilation, layer.groups))
        batch, channels, length = input_shape
        assert not isinstance(layer.padding, str)  # support.py refused names
        across = ((1, *layer.stride), (0, *layer.padding), (1, *layer.dilation), layer.groups)
        return cls((batch, channels, 1, length), across)


class OfRow(nn.Module):
    """A layer of pictures (B, C, 1, T) as one of rows (B, C, T). XNNPACK's delegate takes reshape, not squeeze."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, length = x.shape
        out: Tensor = self.layer(x.reshape(batch, channels, 1, length))
        return out.reshape(batch, out.shape[1], out.shape[3])


def as_filter(weight: Tensor) -> Tensor:
    """A weight as XNNPACK has it: that of a Conv1d, (out, in, k), gets a height of 1; others stay."""
    return weight.unsqueeze(2) if weight.dim() == 3 else weight


class IntegerLayer(nn.Module):
    """The integer weights as XNNPACK wants them: int8 values, one scale per output channel, zero_points of 0."""

    weight_q: Tensor
    weight_scale: Tensor
    weight_zero: Tensor
    bias: Tensor | None

    def __init__(self, weights: LayerWeights, bias: Tensor | None, geometry: Geometry, bits: int, extra: int) -> None:
        super().__init__()
        weight_q = as_filter(weights.weight_q)
        shape = list(weight_q.shape)
        shape[1] = extra
        padding = torch.zeros(shape, dtype=torch.int8)
        self.register_buffer("weight_q", torch.cat([weight_q, padding], dim=1).contiguous())
        self.register_buffer("weight_scale", weights.weight_scale.clone())
        self.register_buffer("weight_zero", torch.zeros(len(weights.weight_scale), dtype=torch.int64))
        # One tensor object per layer: XNNPACK quantizes a shared one with the first layer's scale only.
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.geometry = geometry
        # qmin/qmax of 4 bits select XNNPACK's packed int4 kernel, which exists for Linear only.
        self.packed4 = bits == 4 and geometry.convolution is None

    def apply_weights(self, x: Tensor) -> Tensor:
        """x: dequantized input. The dequantize node on the weight is what XNNPACK recognises."""
        qmin, qmax = (-8, 7) if self.packed4 else (-128, 127)
        weight = decomposed().dequantize_per_channel(
            self.weight_q, self.weight_scale, self.weight_zero, 0, qmin, qmax, torch.int8
        )
        if self.geometry.convolution is None:
            return F.linear(x, weight, self.bias)
        stride, padding, dilation, groups = self.geometry.convolution
        return F.conv2d(x, weight, self.bias, stride, padding, dilation, groups)


class SentinelLayer(IntegerLayer):
    """Float32 result; values beyond any range are planted beside the data, where weights are zero, then all is clamped.

    Clamping to [lo, hi] turns the planted values into exactly lo and hi, so that these are the run-time minimum and
    maximum and the dynamic kernel uses exactly the artifact's scale and zero_point. Zero weights keep them out of sums.
    """

    sentinels: Tensor

    def __init__(
        self, weights: LayerWeights, bias: Tensor | None, geometry: Geometry, bits: int, site: int, ranges: RangesInput
    ) -> None:
        kernel, features = tuple(as_filter(weights.weight_q).shape[2:]), weights.weight_q.shape[1]
        sentinels = _columns(geometry, features) if geometry.convolution is None else _planes(geometry, kernel)
        self.axis = 1 if geometry.convolution is not None else -1
        super().__init__(weights, bias, geometry, bits, sentinels.shape[self.axis])
        self.site, self.ranges = site, ranges
        self.register_buffer("sentinels", sentinels)

    def forward(self, x: Tensor, *unused: object) -> Tensor:
        low, high = self.ranges.ends(self.site, x.dim())
        x = torch.minimum(torch.maximum(torch.cat([x, self.sentinels], dim=self.axis), low), high)
        ops = decomposed()
        scale, zero = ops.choose_qparams.tensor(x, -128, 127, EPSILON, torch.int8)
        quantized = ops.quantize_per_tensor.tensor(x, scale, zero, -128, 127, torch.int8)
        return self.apply_weights(ops.dequantize_per_tensor.tensor(quantized, scale, zero, -128, 127, torch.int8))


def _planes(geometry: Geometry, kernel: tuple[int, ...]) -> Tensor:
    """Channels that hold both ends: one with the low end in a single pixel; two for 1x1 kernels.

    XNNPACK takes the range over the whole picture, but executes 1x1 convolutions as matrix products with a range of
    their own for every pixel (measured with executorch 1.4.1 and 1.5.1), so there every pixel must hold both ends.
    """
    height, width = geometry.input_shape[-2:]
    if kernel == (1, 1) or height * width == 1:
        planes = torch.full((1, 2, height, width), BEYOND)
        planes[:, 0] = -BEYOND
        return planes
    plane = torch.full((1, 1, height, width), BEYOND)
    plane[..., 0, 0] = -BEYOND
    return plane


def _columns(geometry: Geometry, features: int) -> Tensor:
    """Two columns, low and high, as every row has its own minimum and maximum; three if that makes the width even.

    XNNPACK packs 4-bit weights in pairs.
    """
    columns = torch.full((*geometry.input_shape[:-1], 2 + features % 2), BEYOND)
    columns[..., 0] = -BEYOND
    return columns


@dataclass(frozen=True)
class QParams:
    """One tensor's scale and zero_point, as numbers."""

    scale: float
    zero_point: int


class StaticLayer(IntegerLayer):
    """Input and output quantized with constants: XNNPACK's static int8 kernels, one program per step group.

    Args:
        skip: the output also enters a concatenation. A product with one then follows: XNNPACK's layout pass hands a
            dequantized value that is used inside and outside of a delegate on in the wrong layout.
    """

    one: Tensor

    def __init__(
        self,
        weights: LayerWeights,
        bias: Tensor | None,
        geometry: Geometry,
        bits: int,
        entry: QParams,
        result: QParams,
        skip: bool = False,
    ) -> None:
        super().__init__(weights, bias, geometry, bits, 0)
        self.entry, self.result, self.skip = entry, result, skip
        if skip:
            self.register_buffer("one", torch.ones(1, 1, 1, 1))

    def forward(self, x: Tensor, *unused: object) -> Tensor:
        out = _fake_quantize(self.apply_weights(_fake_quantize(x, self.entry)), self.result)
        return out * self.one if self.skip else out


def _fake_quantize(x: Tensor, p: QParams) -> Tensor:
    ops = decomposed()
    quantized = ops.quantize_per_tensor(x, p.scale, p.zero_point, -128, 127, torch.int8)
    y: Tensor = ops.dequantize_per_tensor(quantized, p.scale, p.zero_point, -128, 127, torch.int8)
    return y


LayerFactory = Callable[[str, nn.Conv1d | nn.Conv2d | nn.Linear, Geometry], nn.Module]
