"""Where the compiler gets a quantizer in front of a product wrong, as measured with Qualcomm's own compiler and emulator.

Two quantizers in a row, of one product's result and of the next one's operand, become one conversion, and where the result has
other readers that conversion does not clip: of a wider range, numbers beyond the narrower one come through (one convolution of
the embedded model was 13 % off). 16 rows of features that come from a normalisation or an activation are wrong altogether in
16 bits; 15 and 17 rows are right. And a network with 64 or 256 such rows, of some numbers of channels, does not compile: 64 rows
of 320 to 1,280 channels in the middle of Stable Diffusion 1.5, 256 rows of 320 ("memory allocation", with most of the memory
free). Those of 160 channels do, as do 36, 49, 100, 144, 1,024 and 4,096 rows. A multiplication by ones in front of the quantizer,
which is float, cures all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Ends = tuple[Tensor, Tensor]
"""Smallest and largest number of a quantizer, (G,) each."""
MOVES = (
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Split",
    "Gather",
    "Resize",
    "Concat",
    "Flatten",
    "Expand",
    "Pad",
)
"""Operations that the compiler carries integers through."""
WRONG_ROWS = (16, 64, 256)
ROUNDED = 1e-4
"""Share of a range that counts for nothing."""


def quantized_before(x: Any, ends_of: Callable[[Any], Ends | None]) -> Iterator[Ends]:
    """Ends of the quantizers that a tensor comes from with nothing computed in between.

    Args:
        ends_of: of a tensor that was dequantized; None for any other.
    """
    found, node = ends_of(x), x.producer()
    if found is not None:
        yield found
    elif node is not None and node.op_type in MOVES:
        for value in node.inputs if node.op_type == "Concat" else node.inputs[:1]:
            yield from quantized_before(value, ends_of)


def clips(before: Ends, after: Ends) -> bool:
    """Whether what fits between the first ends does not between the second ones, in any step group."""
    slack = ROUNDED * (before[1] - before[0])
    return bool(((before[0] < after[0] - slack) | (before[1] > after[1] + slack)).any())


def ones_for(shape: list[int]) -> Tensor:
    """What a tensor is multiplied by, of as many axes: along its channels, or its longest axis where there is one channel only;
    one number for all would be taken out of the graph."""
    axis = 1 if len(shape) == 4 else len(shape) - 1
    if shape[axis] == 1:
        axis = max(range(len(shape)), key=shape.__getitem__)
    return torch.ones([size if i == axis else 1 for i, size in enumerate(shape)])


def has_wrong_rows(shape: list[int], bits: int) -> bool:
    """Whether features (..., rows, C) are quantized wrongly, or refused, unless a multiplication makes them."""
    return bits > 8 and len(shape) in (2, 3) and shape[-2] in WRONG_ROWS
