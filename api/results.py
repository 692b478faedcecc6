"""What the functions give: frozen, typed, each with the folder or file that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.errors import CalibrationError

if TYPE_CHECKING:
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.formats.bundle import Bundle as Description
    from dq_toolchain.toolchain.formats.reference import Reference

OnProgress = Callable[[str, int, int], None]
"""(task, done, total): called after every piece of work, in the thread that called the function."""
OnNote = Callable[[str], None]
"""(line): what a user should know of the result, and what is being done."""


@dataclass(frozen=True)
class Calibration:
    """A calibration artifact.

    Attributes:
        folder: that holds it, with its held-out rollouts; what ``export`` reads.
        artifact: sites, integer weights, activation parameters per step group, the sampler's table.
        notes: what was noticed on the way, a line each.
        held_out: its held-out rollouts; None in all but the first of several processes.
    """

    folder: Path
    artifact: Artifact
    held_out: Reference | None = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def reference(self) -> Reference:
        """Held-out rollouts: FP32's and the simulation's. Raises CalibrationError: of other processes than the first."""
        if self.held_out is None:
            raise CalibrationError(
                f"the first process of this launch writes the held-out rollouts, this is another; wait for it, "
                f"and read {self.folder}"
            )
        return self.held_out


@dataclass(frozen=True)
class Bundle:
    """An exported bundle: what is copied to the device.

    Attributes:
        folder: that holds it.
        description: bundle.json: target, form, program, inputs, step groups, sampler table, limits, operations, sizes.
    """

    folder: Path
    description: Description = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return self.description.target


@dataclass(frozen=True)
class Report:
    """A device report: what a run on a device, or on this machine, measured.

    Attributes:
        path: of report.json.
        data: its content: device, runtime, milliseconds per step, error per step, PSNR per seed.
    """

    path: Path
    data: Mapping[str, Any] = field(repr=False)
