"""Products of 8-bit integers by oneDNN on a CPU: the sums that float products give, bit for bit, several times sooner.

Used only where a probe, once per process, finds them exact: processors without VNNI or AMX add pairs of products in
16 bits and saturate, other platforms have no such operations. Elsewhere the simulation multiplies in float.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

OFFSET = 128
"""oneDNN's activations are uint8, ours int8."""


class IntegerProduct:
    """A Conv2d or Linear of uint8 activations and int8 weights with sums in int32.

    Args:
        weight_q: integers of at most 8 bits, shape of the layer's weight.
    Raises:
        RuntimeError: oneDNN has no such product for this layer.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, weight_q: Tensor) -> None:
        weight_q = weight_q.to(torch.int8).contiguous()
        self.zeros = torch.zeros(len(weight_q), dtype=torch.int64)
        self.geometry: tuple[object, ...] | None = None
        if isinstance(layer, nn.Conv2d):
            geometry = list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups
            ones = torch.ones(len(weight_q))
            self.packed = torch.ops.onednn.qconv_prepack(weight_q, ones, 1.0, 0, *geometry, None)
            self.geometry = geometry
        else:
            self.packed = torch.ops.onednn.qlinear_prepack(weight_q, None)

    def __call__(self, q: Tensor, zero_point: int, scale: Tensor, bias: Tensor | None) -> Tensor:
        """scale * sum((q - zero_point) * weight_q) + bias, float32.

        Args:
            q: uint8, shape of the layer's input. zero_point: 0-255. scale, bias: (out,) float32.
        """
        operands = (q, 1.0, zero_point, self.packed, scale, self.zeros, bias)
        result = (1.0, 0, torch.float32, "none", [], "")
        y: Tensor
        if self.geometry is None:
            y = torch.ops.onednn.qlinear_pointwise(*operands, *result)
        else:
            y = torch.ops.onednn.qconv2d_pointwise(*operands, *self.geometry, *result)
        return y


@functools.cache
def available() -> bool:
    """Whether this process has integer products and they are exact where 16-bit sums would saturate."""
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
            if not torch.equal(IntegerProduct(layer, weight)(q, 3, torch.ones(16), None).double(), expected):
                return False
    except (AttributeError, RuntimeError):
        return False
    return True


def integer_product(layer: nn.Conv2d | nn.Linear, weight_q: Tensor) -> IntegerProduct | None:
    """The layer's integer product; None where there is no exact one."""
    named_padding = isinstance(layer, nn.Conv2d) and isinstance(layer.padding, str)
    if named_padding or weight_q.device.type != "cpu" or not available():
        return None
    try:
        return IntegerProduct(layer, weight_q)
    except RuntimeError:
        return None
