"""An .aimodel ready to execute: Core AI itself on a Mac, Apple's interpreter elsewhere."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from dq_toolchain.backends.base import Execute, Runtime
from dq_toolchain.backends.common.call import OUTPUT
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.coreai.runtime.apple import Model
from dq_toolchain.backends.coreai.vendor import VERSIONS
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Bundle

INTERPRETER = "Apple's Core AI interpreter"


def open_bundle(bundle: Bundle, folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    """What executes a bundle here. Raises BackendError: the asset does not load, or threads were given."""
    if threads is not None:
        raise BackendError("threads cannot be set for target 'coreai': Core AI chooses them; leave --threads out")
    return open_asset(folder / bundle.program, Schedule.of(bundle, folder))


def open_asset(asset: Path, schedule: Schedule) -> tuple[Execute, Runtime]:
    """One execution of step k's function, and what executes it.

    Raises:
        BackendError: the asset does not load.
    """
    start = time.perf_counter()
    model = Model(asset)
    if sys.platform == "darwin":
        name, version, unit = "Core AI", platform.mac_ver()[0], "as Core AI chooses"
    else:
        name, version, unit = INTERPRETER, VERSIONS["coreai-core"], "CPU, in float: no compute unit of a device"

    def step(k: int, sample: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        inputs = {"sample": sample, "timestep": timestep, **conditioning, **schedule.inputs(k)}
        return model(schedule.method_of_step[k], inputs)[OUTPUT]

    return step, Runtime(name, version, unit, (time.perf_counter() - start) * 1e3)
