"""How a tensor becomes integers and back: with numbers fixed in the program, or with what an input of the call tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from dq_toolchain.backends.common.qdq.operators import Operators
from dq_toolchain.backends.common.qdq.tags import tag


class Entry(Protocol):
    """Q/DQ at a site: (x, site) -> the tensor for the product, and a factor that its result still needs, if any."""

    def __call__(self, x: Tensor, site: int) -> tuple[Tensor, Tensor | None]: ...


class FixedEntry:
    """Numbers that stand in the program: ``numbers(site)`` gives (scale, zero_point)."""

    def __init__(self, operators: Operators, numbers: Callable[[int], tuple[float, int]]) -> None:
        self.operators, self.numbers = operators, numbers

    def __call__(self, x: Tensor, site: int) -> tuple[Tensor, Tensor | None]:
        return self.operators.quantized(x, *self.numbers(site)), None


def tagged(operators: Operators) -> FixedEntry:
    """The site's tag in the place of its scale."""
    return FixedEntry(operators, lambda site: (tag(site), 0))


class RangesInput:
    """The ``ranges`` tensor of the call in progress, (1, L), shared by all layers of one program."""

    row: Tensor

    def set(self, ranges: Tensor) -> None:
        """Give all sites the numbers of this call."""
        self.row = ranges

    def column(self, site: int) -> Tensor:
        """The number of one site, (1,)."""
        return self.row[:, site]
