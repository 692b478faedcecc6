"""Scale, zero_point and integer type of every quantizer, as the graphs hold them: unsigned, which is what the NPU takes.

An artifact's integers are signed. ``q + 2^(bits - 1)`` with a zero_point that much larger stands for the same number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.output_ranges import OutputRanges
from dq_toolchain.toolchain.simulation.results import KIND, result_qparams


@dataclass(frozen=True)
class Numbers:
    """Of one tensor: ``scale`` (G,) float32, ``zero_point`` (G,) int32 over the step groups; ``bits`` of its unsigned integers."""

    scale: Tensor
    zero_point: Tensor
    bits: int

    @property
    def dtype(self) -> str:
        """Of onnx_ir: "UINT8" or "UINT16"."""
        return f"UINT{self.bits}"

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest number that it holds, (G,) each."""
        return -self.zero_point * self.scale, ((1 << self.bits) - 1 - self.zero_point) * self.scale

    @property
    def key(self) -> tuple[object, ...]:
        """The same for equal numbers."""
        return self.bits, tuple(self.scale.tolist()), tuple(self.zero_point.tolist())


def offset(bits: int) -> int:
    """What is added to an integer of the artifact: 128 or 32768."""
    return 1 << (bits - 1)


def numbers_of(artifact: Artifact) -> dict[str, Numbers]:
    """By site: of the artifact's sites, then of the results of products, whose ranges become 16-bit integers of any zero_point
    where they are no sites."""
    found = {
        site.name: Numbers(
            artifact.scale[:, i], artifact.zero_point[:, i].to(torch.int32) + offset(site.bits), site.bits
        )
        for i, site in enumerate(artifact.sites)
    }
    return found | ({} if artifact.output_ranges is None else _of_ranges(artifact.output_ranges))


def _of_ranges(ranges: OutputRanges) -> dict[str, Numbers]:
    scale, zero_point = result_qparams(ranges)
    return {
        name: Numbers(scale[:, i], zero_point[:, i] + offset(KIND.bits), KIND.bits)
        for i, name in enumerate(ranges.names)
    }
