"""Which method and which ranges a step executes with, for both forms of the program."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.common.sampling import Execute
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.executorch.runtime.device import Device


def executor(device: Device, schedule: Schedule) -> Execute:
    """One execution of step k's method with its step group's ranges."""

    def execute(k: int, sample: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return device(schedule.method_of_step[k], Call(sample, timestep, conditioning, schedule.row(k)).arguments)

    return execute
