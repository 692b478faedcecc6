"""What products give where activations have 16 bits: a runtime that multiplies such integers keeps each result in 16 bits too.

The simulation rounds them as well. They are fine, but what enters only a few of them can stand out: the rounding of a text's
projection is the same number at every pixel, step and seed of that text, and moved errors by 3 % in a network of two blocks.
"""

from __future__ import annotations

from torch import Tensor

from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.output_ranges import OutputRanges
from dq_toolchain.toolchain.quant.qparams import activation_type, range_to_qparams
from dq_toolchain.toolchain.quant.site import has_wide_activations

KIND = activation_type(16)
MARGIN = 2.0
"""Of a measured range: other samples go beyond it, what is clipped is lost, and 15 of 16 bits are still finer than fp16."""


def result_qparams(ranges: OutputRanges) -> tuple[Tensor, Tensor]:
    """scale (G, P) float32 and zero_point (G, P) int32 of results in 16 bits, columns as in ``ranges``."""
    return range_to_qparams(MARGIN * ranges.low, MARGIN * ranges.high, KIND, "affine")


def wide_results(artifact: Artifact) -> dict[str, tuple[Tensor, Tensor]]:
    """scale (G,) and zero_point (G,) of every result that is rounded to 16 bits, by the name of its site.

    Empty where activations have 8 bits: their results are sites of the artifact, or stay in float.
    """
    ranges = artifact.output_ranges
    if ranges is None or not has_wide_activations(artifact.sites):
        return {}
    scale, zero_point = result_qparams(ranges)
    return {name: (scale[:, i], zero_point[:, i]) for i, name in enumerate(ranges.names)}
