"""Which method and which ranges a step executes with, for both forms of the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dq_toolchain.backends.executorch.device import Device
from dq_toolchain.backends.executorch.program import Call
from dq_toolchain.backends.sampling import Execute


@dataclass(frozen=True)
class Schedule:
    """What changes from step to step. ``ranges`` is (G, 2L) for the sentinel form, None for the static one."""

    method_of_step: tuple[str, ...]
    group_of_step: tuple[int, ...]
    ranges: Tensor | None


def executor(device: Device, schedule: Schedule) -> Execute:
    """One execution of step k's method with its step group's ranges."""

    def execute(k: int, sample: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        ranges, group = schedule.ranges, schedule.group_of_step[k]
        row = None if ranges is None else ranges[group : group + 1]
        return device(schedule.method_of_step[k], Call(sample, timestep, conditioning).arguments(row))

    return execute
