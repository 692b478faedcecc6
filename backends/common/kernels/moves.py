"""Operations that move numbers, or put others beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Pairs = Sequence[tuple[int, int]]
"""(before, after) of each of the last axes, from the first of them on."""


def pairs(flat: Sequence[int]) -> Pairs:
    """before, after, before, after... as pairs."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def pad(x: Tensor, sizes: Pairs, mode: str, value: float = 0.0) -> Tensor:
    """Modes: constant; replicate, reflect (which leaves the border out). Raises KeyError: another one."""
    if mode == "constant":
        return F.pad(x, [n for pair in reversed(sizes) for n in pair], value=value)
    for axis, (before, after) in enumerate(sizes, x.dim() - len(sizes)):
        if before or after:
            index = SOURCES[mode](torch.arange(-before, x.shape[axis] + after), x.shape[axis])
            x = x.index_select(axis, index)
    return x


def _reflect(index: Tensor, side: int) -> Tensor:
    return (side - 1 - (side - 1 - index.abs()).abs()).abs()


SOURCES: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "replicate": lambda index, side: index.clamp(0, side - 1),
    "reflect": _reflect,
}
"""(place before padding, perhaps outside; side) -> the place whose number goes there."""


def cut(x: Tensor, sizes: Pairs) -> Tensor:
    """What ``pad`` would add, taken away."""
    for axis, (before, after) in enumerate(sizes, x.dim() - len(sizes)):
        x = x.narrow(axis, before, x.shape[axis] - before - after)
    return x


def resize_nearest(x: Tensor, shape: Sequence[int], scale: Sequence[float], offset: Sequence[float]) -> Tensor:
    """Place i of an axis takes the one nearest to (i + 0.5 - offset) / scale - 0.5, ties to even, inside the borders."""
    for axis, side in enumerate(shape):
        if side != x.shape[axis] or scale[axis] != 1 or offset[axis] != 0:
            places = (torch.arange(side) + 0.5 - offset[axis]) / scale[axis] - 0.5
            x = x.index_select(axis, places.round().clamp(0, x.shape[axis] - 1).to(torch.int64))
    return x
