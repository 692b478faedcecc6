"""Which method and which ranges a step executes with, for both forms of the program."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from dq_toolchain.backends.base import Execute, Runtime
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.backends.executorch.vendor import LIBRARY, set_threads
from dq_toolchain.toolchain.formats.bundle import Bundle


def executor(device: Device, schedule: Schedule) -> Execute:
    """One execution of step k's method with its step group's ranges."""

    def execute(k: int, sample: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return device(schedule.method_of_step[k], schedule.call(k, sample, timestep, conditioning).arguments)

    return execute


def open_bundle(bundle: Bundle, folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    """What executes a bundle here.

    Args:
        threads: of XNNPACK; None is its own choice.
    Raises:
        BackendError: the program does not load.
    """
    if threads is not None:
        set_threads(threads)
    device = Device(folder / bundle.program, bundle.methods)
    runtime = Runtime("ExecuTorch", version(LIBRARY), "XNNPACK CPU", device.load_ms)
    return executor(device, Schedule.of(bundle, folder)), runtime
