"""Products of 8-bit integers, by oneDNN on a CPU and by matrix products on a GPU: the sums that float products give, bit for
bit, several times sooner.

Used only where a probe, once per process and kind of device, finds them exact: processors without VNNI or AMX add pairs of
products in 16 bits and saturate, other platforms have no such operations. Elsewhere the simulation multiplies in float.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.quant.layers import TRANSPOSED, Layer, OutputFirst
from dq_toolchain.toolchain.quant.qparams import IntegerType
from dq_toolchain.toolchain.simulation.matrix_products import OFFSET, Geometry, MatrixProduct, marked

Product = Callable[[Tensor, int, Tensor, Tensor | None], Tensor]
"""(q, zero_point, scale, bias) -> the layer's output: ``IntegerProduct`` or ``MatrixProduct``."""


def geometry_of(layer: Layer) -> Geometry | None:
    """What of a layer, its weight aside, decides its product; None of a transposed convolution, which oneDNN has no such
    product for."""
    if isinstance(layer, (*TRANSPOSED, OutputFirst)):
        return None
    return () if isinstance(layer, nn.Linear) else (layer.stride, layer.padding, layer.dilation, layer.groups)


def holds(x: Tensor) -> bool:
    """Whether integers can stand for x: nothing in it is NaN, which they would turn into a number. A GPU is not asked, which
    would make the host wait: there ``unsigned_scale`` keeps NaN."""
    return x.device.type != "cpu" or bool(x.sum().isfinite())


def unsigned(x: Tensor, scale: Tensor, zero_point: int, kind: IntegerType) -> Tensor:
    """quantize(x) + OFFSET as uint8, shape of x; scale: one number; kind: one whose integers fit into a byte."""
    assert not kind.is_wide
    q = (x / scale).round_().add_(zero_point + OFFSET).clamp_(kind.qmin + OFFSET, kind.qmax + OFFSET)
    return q.to(torch.uint8)


def unsigned_scale(scale: Tensor, x: Tensor) -> Tensor:
    """The scale that goes with ``unsigned`` of x: itself on a CPU, elsewhere one for every sample (``marked``)."""
    return scale if x.device.type == "cpu" else marked(scale, x)


class IntegerProduct:
    """A Conv1d, Conv2d or Linear of uint8 activations and int8 weights with sums in int32.

    Args:
        weight_q: integers of at most 8 bits, shape of the layer's weight.
    Raises:
        RuntimeError: oneDNN has no such product for this layer.
    """

    def __init__(self, geometry: Geometry, weight_q: Tensor) -> None:
        weight_q = weight_q.to(torch.int8).contiguous()
        self.geometry, self.zeros = geometry, torch.zeros(len(weight_q), dtype=torch.int64)
        self.row = bool(geometry) and weight_q.dim() == 3
        """Of one dimension: a picture one pixel high."""
        if self.row:
            stride, padding, dilation, groups = geometry
            self.geometry = geometry = ((1, *stride), (0, *padding), (1, *dilation), groups)
            weight_q = weight_q.unsqueeze(2)
        if geometry:
            ones = torch.ones(len(weight_q))
            self.packed = torch.ops.onednn.qconv_prepack(weight_q, ones, 1.0, 0, *geometry, None)
        else:
            self.packed = torch.ops.onednn.qlinear_prepack(weight_q, None)

    def __call__(self, q: Tensor, zero_point: int, scale: Tensor, bias: Tensor | None) -> Tensor:
        """scale * sum((q - zero_point) * weight_q) + bias, float32.

        Args:
            q: uint8, shape of the layer's input. zero_point: 0-255. scale, bias: (out,) float32.
        """
        q = q.unsqueeze(2) if self.row else q
        operands = (q, 1.0, zero_point, self.packed, scale, self.zeros, bias)
        result: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
        y: Tensor
        if self.geometry:
            y = torch.ops.onednn.qconv2d_pointwise(*operands, *self.geometry, *result)
            if q.is_contiguous():  # what follows then sums in the order it would after a float product: the same bits
                y = y.contiguous()
            y = y.squeeze(2) if self.row else y
        else:
            y = torch.ops.onednn.qlinear_pointwise(*operands, *result)
        return y


@functools.cache
def available(device: str = "cpu") -> bool:
    """Whether this kind of device has integer products and they are exact where 16-bit sums would saturate."""
    kind = IntegerProduct if device == "cpu" else MatrixProduct
    try:
        for layer, shape in ((nn.Linear(64, 16), (4, 64)), (nn.Conv2d(64, 16, 3, padding=1), (1, 64, 6, 6))):
            q, weight = torch.full(shape, 255, dtype=torch.uint8), torch.full_like(layer.weight, 127)
            weight[::2] = -128
            integers, bias = q.to(torch.float64) - 3, torch.zeros(16, dtype=torch.float64)
            expected = (
                nn.functional.conv2d(integers, weight.double(), bias, padding=1)
                if isinstance(layer, nn.Conv2d)
                else nn.functional.linear(integers, weight.double(), bias)
            )
            product = kind(geometry_of(layer) or (), weight.to(device))
            found = product(q.to(device), 3, torch.ones(16, device=device), None)
            if not torch.equal(found.cpu().double(), expected):
                return False
    except (AttributeError, RuntimeError):
        return False
    return True


def integer_product(geometry: Geometry | None, weight_q: Tensor) -> Product | None:
    """The integer product of a layer of that geometry on the weight's device; None where there is no exact one."""
    if geometry is None:
        return None
    padding_by_name, device = any(isinstance(part, str) for part in geometry), weight_q.device.type
    if padding_by_name or not available(device):
        return None
    try:
        return (IntegerProduct if device == "cpu" else MatrixProduct)(geometry, weight_q)
    except RuntimeError:
        return None
