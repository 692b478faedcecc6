"""Large results in parts: each is computed in float64 and rounded while it is in the cache, and no whole is ever float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels import products
from dq_toolchain.backends.common.kernels.declared import as_declared

BLOCK = 2**20
"""Elements that are held in float64 at once."""


@dataclass(frozen=True)
class Parts:
    """A result that is yet to be computed.

    Attributes:
        axis: along which the parts lie. part: (start, length) -> that part.
    """

    shape: Sequence[int]
    axis: int
    part: Callable[[int, int], Tensor]

    def joined(self, dtype: torch.dtype) -> Tensor:
        """The whole, rounded to ``dtype``; equal to what is computed at once."""
        side = self.shape[self.axis]
        length = max(1, BLOCK * side // max(1, prod(self.shape)))
        first = as_declared(self.part(0, min(length, side)), dtype)
        if length >= side:
            return first
        out = first.new_empty(tuple(self.shape))
        out.narrow(self.axis, 0, length).copy_(first)
        for start in range(length, side, length):
            size = min(length, side - start)
            out.narrow(self.axis, start, size).copy_(as_declared(self.part(start, size), dtype))
        return out


def matmul(x: Tensor, y: Tensor) -> Parts:
    """``products.matmul`` by rows of x."""
    shape = (*torch.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    wide = y.double()
    return Parts(shape, len(shape) - 2, lambda start, length: products.matmul(x.narrow(-2, start, length), wide))


def softmax(x: Tensor, axis: int) -> Parts:
    """``products.softmax`` by places of the longest other axis."""
    along = axis % x.dim()
    other = max((a for a in range(x.dim()) if a != along), key=lambda a: x.shape[a], default=None)
    if other is None:
        return Parts(x.shape, 0, lambda _start, _length: products.softmax(x, along))
    return Parts(x.shape, other, lambda start, length: products.softmax(x.narrow(other, start, length), along))
