"""How a tensor becomes integers and back: with numbers fixed in the program, or with a ratio that is an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from dq_toolchain.backends.common.ratios import reference_scales
from dq_toolchain.backends.common.vendors import decomposed
from dq_toolchain.backends.coreml.graph.tags import tag
from dq_toolchain.toolchain.formats.artifact import Artifact


class Entry(Protocol):
    """Q/DQ at a site: (x, site) -> the tensor for the product, and a factor that its result still needs, if any."""

    def __call__(self, x: Tensor, site: int) -> tuple[Tensor, Tensor | None]: ...


def quantized(x: Tensor, scale: float, zero_point: int = 0) -> Tensor:
    """dequantize(quantize(x)) in int8, in the operators that conversion recognises."""
    ops = decomposed()
    q = ops.quantize_per_tensor(x, scale, zero_point, -128, 127, torch.int8)
    y: Tensor = ops.dequantize_per_tensor(q, scale, zero_point, -128, 127, torch.int8)
    return y


class FixedEntry:
    """Numbers that stand in the program: ``numbers(site)`` gives (scale, zero_point)."""

    def __init__(self, numbers: Callable[[int], tuple[float, int]]) -> None:
        self.numbers = numbers

    def __call__(self, x: Tensor, site: int) -> tuple[Tensor, Tensor | None]:
        return quantized(x, *self.numbers(site)), None


TAGGED = FixedEntry(lambda site: (tag(site), 0))
"""The site's tag in the place of its scale."""


class RangesInput:
    """The ``ranges`` tensor of the call in progress, (1, L), shared by all layers of one program."""

    row: Tensor

    def set(self, ranges: Tensor) -> None:
        """Give all sites the ratios of this call."""
        self.row = ranges

    def ratio(self, site: int) -> Tensor:
        """scale / reference scale of one site, (1,)."""
        return self.row[:, site]


class RuntimeEntry:
    """Q/DQ(x / ratio; reference scale), to be multiplied by the ratio: the site's scale, though it is no constant."""

    def __init__(self, artifact: Artifact, ranges: RangesInput) -> None:
        self.ranges, self.reference = ranges, reference_scales(artifact.scale).tolist()

    def __call__(self, x: Tensor, site: int) -> tuple[Tensor, Tensor | None]:
        ratio = self.ranges.ratio(site)
        return quantized(x / ratio, self.reference[site]), ratio
