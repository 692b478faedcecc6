"""Run-time scales where a program's scales are constants: the ratio to a reference scale is the input."""

from __future__ import annotations

from torch import Tensor

from dq_toolchain.backends.common.qdq.entries import RangesInput
from dq_toolchain.backends.common.ratios import reference_scales
from dq_toolchain.backends.coreml.graph.operators import OPERATORS
from dq_toolchain.toolchain.formats.artifact import Artifact


class RatioEntry:
    """Q/DQ(x / ratio; reference scale), to be multiplied by the ratio: the site's scale, though it is no constant."""

    def __init__(self, artifact: Artifact, ranges: RangesInput) -> None:
        self.ranges, self.reference = ranges, reference_scales(artifact.scale).tolist()

    def __call__(self, x: Tensor, site: int) -> tuple[Tensor, Tensor | None]:
        ratio = self.ranges.column(site)
        return OPERATORS.quantized(x / ratio, self.reference[site]), ratio
