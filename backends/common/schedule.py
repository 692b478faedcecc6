"""What changes from step to step: which method executes, and with which ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dq_toolchain.backends.common.call import Call
from dq_toolchain.toolchain.formats.bundle import Bundle


@dataclass(frozen=True)
class Schedule:
    """Method and step group of every step; ``ranges`` has a row per step group, None if they are no input; ``step_vectors`` a row
    per step, None where the program takes the timestep."""

    method_of_step: Sequence[str]
    group_of_step: Sequence[int]
    ranges: Tensor | None
    step_vectors: Tensor | None = None

    @classmethod
    def of(cls, bundle: Bundle, folder: Path) -> Schedule:
        """Raises ArtifactError: the ranges are missing or of another shape."""
        methods = tuple(bundle.method_of_step(k) for k in range(bundle.table.calls))
        return cls(methods, bundle.group_of_step, bundle.ranges(folder), bundle.step_vectors(folder))

    def time(self, k: int, timestep: Tensor) -> Tensor:
        """What the program takes of time at step k: ``timestep`` (1,), or the step's vectors (1, V)."""
        return timestep if self.step_vectors is None else self.step_vectors[k : k + 1]

    def call(self, k: int, sample: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Call:
        """All inputs of step k; arguments as of ``base.Execute``."""
        return Call(sample, self.time(k, timestep), conditioning, self.row(k))

    def row(self, k: int) -> Tensor | None:
        """Ranges of step k, (1, ...)."""
        group = self.group_of_step[k]
        return None if self.ranges is None else self.ranges[group : group + 1]
