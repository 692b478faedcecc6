"""How a tensor becomes integers and back: with numbers fixed in the program, or with a ratio that is an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from dq_toolchain.backends.coreml.tags import tag
from dq_toolchain.backends.vendors import decomposed
from dq_toolchain.toolchain.artifact import Artifact
from dq_toolchain.toolchain.errors import BackendError


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

    def ratio(self, site: int) -> Tensor:
        """scale / reference scale of one site, (1,)."""
        return self.row[:, site]


class RuntimeEntry:
    """Q/DQ(x / ratio; reference scale), to be multiplied by the ratio: the site's scale, though it is no constant.

    MIL takes constants only as scales. A reference scale that is a power of two leaves every rounding where it was:
    x / (r * 2^n) and (x / r) / 2^n are the same number.
    """

    def __init__(self, artifact: Artifact, ranges: RangesInput) -> None:
        self.ranges, self.reference = ranges, reference_scales(artifact.scale).tolist()

    def __call__(self, x: Tensor, site: int) -> tuple[Tensor, Tensor | None]:
        ratio = self.ranges.ratio(site)
        return quantized(x / ratio, self.reference[site]), ratio


def reference_scales(scale: Tensor) -> Tensor:
    """(G, L) scales -> (L,): a power of two in the middle of each site's, at least the smallest normal fp16 number."""
    return torch.exp2(scale.log2().mean(0).round().clamp(min=-14))


def ratio_table(artifact: Artifact) -> Tensor:
    """(G, L) float32: what the input ``ranges`` gets in each step group.

    Raises:
        BackendError: a zero_point is not 0, or a ratio is no fp16 number; the text names the site.
    """
    ratios = artifact.scale / reference_scales(artifact.scale)
    for index, site in enumerate(artifact.sites):
        if artifact.zero_point[:, index].any():
            raise BackendError(f"run-time scales need scheme 'symmetric', got a zero_point at site {site.name}; calibrate "
                               "with scheme symmetric, or export without --runtime-scales")
        if not torch.equal(ratios[:, index].to(torch.float16).to(torch.float32), ratios[:, index]):
            raise BackendError(f"the scales of {site.name} differ too much between step groups for run-time scales in fp16; "
                               "export without --runtime-scales")
    return ratios
