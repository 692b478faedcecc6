"""What every quantize and dequantize of a package must hold: a column per quantized tensor, a row per step group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.backends.common.outputs import OutputQParams
from dq_toolchain.toolchain.formats.artifact import Artifact


@dataclass(frozen=True)
class QParams:
    """``names`` of N tensors; ``scale`` (G, N) float32 and ``zero_point`` (G, N) int32.

    The artifact's sites come first, in its order; the outputs of its layers follow, where they are quantized.
    """

    names: tuple[str, ...]
    scale: Tensor
    zero_point: Tensor

    @classmethod
    def of(cls, artifact: Artifact, outputs: OutputQParams | None = None) -> QParams:
        names = tuple(site.name for site in artifact.sites)
        if outputs is None:
            return cls(names, artifact.scale, artifact.zero_point.to(torch.int32))
        return cls(
            names + tuple(f"{site.layer}:output" for site in artifact.sites),
            torch.cat([artifact.scale, outputs.scale], dim=1),
            torch.cat([artifact.zero_point.to(torch.int32), outputs.zero_point], dim=1))  # fmt: skip

    def at(self, group: int, index: int) -> tuple[float, int]:
        """scale and zero_point of one tensor in one step group."""
        return float(self.scale[group, index]), int(self.zero_point[group, index])
