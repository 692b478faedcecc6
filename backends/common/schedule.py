"""What changes from step to step: which method executes, and with which ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dq_toolchain.toolchain.formats.bundle import Bundle


@dataclass(frozen=True)
class Schedule:
    """Method and step group of every step; ``ranges`` has a row per step group, None if they are no input."""

    method_of_step: Sequence[str]
    group_of_step: Sequence[int]
    ranges: Tensor | None

    @classmethod
    def of(cls, bundle: Bundle, folder: Path) -> Schedule:
        """Raises ArtifactError: the ranges are missing or of another shape."""
        methods = tuple(bundle.method_of_step(k) for k in range(bundle.table.calls))
        return cls(methods, bundle.group_of_step, bundle.ranges(folder))

    def row(self, k: int) -> Tensor | None:
        """Ranges of step k, (1, ...)."""
        group = self.group_of_step[k]
        return None if self.ranges is None else self.ranges[group : group + 1]

    def inputs(self, k: int) -> dict[str, Tensor]:
        """Inputs of step k besides sample, timestep and conditioning."""
        row = self.row(k)
        return {} if row is None else {"ranges": row}
