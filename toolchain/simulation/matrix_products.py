"""Products of 8-bit integers by ``torch._int_mm``, on GPUs: sums in int32, which are exact in any order.

A Linear and a 1x1 convolution are matrix products already; of other convolutions the patches are laid out first (im2col).
Nothing here waits for the device.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Geometry = tuple[Any, ...]

OFFSET = 128
"""Activations come as uint8, and ``torch._int_mm`` takes int8."""
LEAST_ROWS, MULTIPLE = 32, 8
"""Of ``torch._int_mm`` on a GPU: more than 16 rows, and rows and columns of the weight in multiples of 8."""
PATCHES = 2**28
"""Bytes of patches that are laid out at once, unless those of one sample are more."""
LONGEST = 2**17
"""Products of two integers of 8 bits that int32 sums up in any case."""


class MatrixProduct:
    """A Conv1d, Conv2d or Linear of uint8 activations and int8 weights with sums in int32, on the weight's device.

    Args:
        geometry: see ``integer_products.geometry_of``.
        weight_q: integers of at most 8 bits, shape of the layer's weight.
    Raises:
        RuntimeError: there is no such product for this layer: it has channel groups, or sums that int32 may not hold.
    """

    def __init__(self, geometry: Geometry, weight_q: Tensor) -> None:
        weight_q = weight_q.to(torch.int8)
        self.row = bool(geometry) and weight_q.dim() == 3
        """Of one dimension: a picture one pixel high."""
        if self.row:
            stride, padding, dilation, groups = geometry
            geometry = ((1, *stride), (0, *padding), (1, *dilation), groups)
            weight_q = weight_q.unsqueeze(2)
        self.geometry, self.kernel = geometry, tuple(weight_q.shape[2:])
        if geometry and geometry[3] != 1:
            raise RuntimeError("a convolution with channel groups is no matrix product")
        flat = weight_q.permute(0, 2, 3, 1).flatten(1) if geometry else weight_q  # as patches lie: channels last
        self.outputs, self.length = flat.shape
        if self.length >= LONGEST:
            raise RuntimeError("int32 may not hold these sums")
        self.weight = F.pad(flat, (0, -self.length % MULTIPLE, 0, -self.outputs % MULTIPLE)).contiguous()
        self.weight_sums = flat.sum(1, dtype=torch.int32)

    def __call__(self, q: Tensor, zero_point: int, scale: Tensor, bias: Tensor | None) -> Tensor:
        """scale * sum((q - zero_point) * weight_q) + bias, float32; of a convolution with channels last in memory.

        Args:
            q: uint8, shape of the layer's input. zero_point: 0-255. bias: (out,) float32.
            scale: (out,) float32, or (B, out) where samples differ.
        """
        signed, zero = (q ^ OFFSET).view(torch.int8), zero_point - OFFSET
        if not self.geometry:
            sums = self._sums(signed.flatten(0, -2), zero)
            return self._real(sums, len(q), scale, bias).view(*q.shape[:-1], self.outputs)
        rows = self._windows((signed.unsqueeze(2) if self.row else signed).permute(0, 2, 3, 1), zero)
        height, width = rows.shape[1:3]
        parts = rows.split(max(1, PATCHES // (height * width * self.length)))
        sums = torch.cat([self._sums(part.reshape(-1, self.length), zero) for part in parts])
        y = self._real(sums, len(q), scale, bias).view(len(q), height, width, self.outputs).permute(0, 3, 1, 2)
        return y.squeeze(2) if self.row else y

    def _windows(self, x: Tensor, zero: int) -> Tensor:
        """(B, H, W, C) int8 -> what every output looks at, (B, height, width, *kernel, C); no copy but of what is padded."""
        strides, padding, dilations, _ = self.geometry
        if any(padding):
            x = F.pad(x, (0, 0, padding[1], padding[1], padding[0], padding[0]), value=zero)
        for axis, (size, stride, dilation) in enumerate(zip(self.kernel, strides, dilations, strict=True), 1):
            x = x.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
        return x.permute(0, 1, 2, 4, 5, 3)

    def _sums(self, rows: Tensor, zero: int) -> Tensor:
        """(M, length) int8 -> (M, out) int32: sum((rows - zero) * weight)."""
        count = len(rows)
        missing = max(0, LEAST_ROWS - count), self.weight.shape[1] - self.length
        if any(missing):
            rows = F.pad(rows, (0, missing[1], 0, missing[0]))
        sums = torch._int_mm(rows.contiguous(), self.weight.t())[:count, : self.outputs]
        return sums if zero == 0 else sums - zero * self.weight_sums

    def _real(self, sums: Tensor, samples: int, scale: Tensor, bias: Tensor | None) -> Tensor:
        """(M, out) int32 -> (B, M / B, out) float32."""
        y = (
            sums.view(samples, -1, self.outputs)
            .to(torch.float32)
            .mul_(scale.unsqueeze(1) if scale.dim() == 2 else scale)
        )
        return y if bias is None else y.add_(bias)


def marked(scale: Tensor, x: Tensor) -> Tensor:
    """The scale for every sample of x, NaN where the sample holds NaN, which integers cannot: (B, 1).

    So that what is not a number stays so, without a question to the device.
    """
    largest = x.amax(tuple(range(1, x.dim())))
    return torch.where(largest.isnan(), largest, scale).to(scale.dtype).unsqueeze(1)
