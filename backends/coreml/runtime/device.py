"""An .mlpackage ready to execute: Core ML itself on a Mac, the interpreter elsewhere."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.base import Execute, Runtime
from dq_toolchain.backends.common.call import OUTPUT
from dq_toolchain.backends.common.qdq.export import MAIN
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.coreml.interpreter.program import load
from dq_toolchain.backends.coreml.package import packages_in
from dq_toolchain.backends.coreml.vendor import coremltools
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.versions import own_version

INTERPRETER = "dq-toolchain interpreter of ML Programs"


def open_bundle(bundle: Bundle, folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    """What executes a bundle here. Raises BackendError: a package does not load, or threads were given."""
    if threads is not None:
        raise BackendError("threads cannot be set for target 'coreml': Core ML chooses them; leave --threads out")
    return open_package(folder / bundle.program, Schedule.of(bundle, folder))


def open_package(program: Path, schedule: Schedule) -> tuple[Execute, Runtime]:
    """One execution of step k's function, and what executes it.

    Args:
        program: a package, or a folder of chunks.
    Raises:
        BackendError: a package does not load.
    """
    start = time.perf_counter()
    functions = tuple(dict.fromkeys(schedule.method_of_step))
    execute = opened(program, functions)
    if sys.platform == "darwin":
        name, version, unit = "Core ML", platform.mac_ver()[0], "CPU and Neural Engine, as Core ML chooses"
    else:
        name, version, unit = (
            INTERPRETER,
            own_version(),
            f"CPU, torch {torch.__version__}: not Core ML",
        )

    def step(k: int, sample: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        inputs = schedule.call(k, sample, timestep, conditioning).named
        out: Tensor = execute[schedule.method_of_step[k]](inputs)[OUTPUT]
        return out

    return step, Runtime(name, version, unit, (time.perf_counter() - start) * 1e3)


def opened(program: Path, functions: Sequence[str]) -> Mapping[str, Any]:
    """(inputs by name) -> outputs by name, for each of the functions. Raises BackendError: a package does not load."""
    return _core_ml(packages_in(program), functions) if sys.platform == "darwin" else load(*packages_in(program))


def _core_ml(packages: Sequence[Path], functions: Sequence[str]) -> dict[str, Any]:
    ct = coremltools()

    def open_function(package: Path, name: str) -> Any:
        several = {} if name == MAIN else {"function_name": name}
        try:
            return ct.models.MLModel(str(package), compute_units=ct.ComputeUnit.CPU_AND_NE, **several)
        except (RuntimeError, ValueError, OSError) as error:
            raise BackendError(
                f"Core ML cannot load function {name!r}: {' '.join(str(error).split())[:300]}; "
                "run `dq-toolchain export --target coreml` again"
            ) from error

    def chain(name: str) -> Any:
        models = [open_function(package, name) for package in packages]

        def predict(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            arrays, out = {key: _array(value) for key, value in inputs.items()}, {}
            for model in models:
                out = model.predict({key: arrays[key] for key in _inputs(model.get_spec().description, name)})
                arrays |= out
            return {key: torch.from_numpy(np.asarray(value, np.float32)) for key, value in out.items()}

        return predict

    return {name: chain(name) for name in functions}


def _inputs(description: Any, function: str) -> list[str]:
    """Names of what a function takes; a package of one function describes it at the top."""
    own = next((one for one in description.functions if one.name == function), description)
    return [port.name for port in own.input]


def _array(value: Tensor) -> Any:
    return value.numpy().astype(np.float32 if value.is_floating_point() else np.int32)
