"""An .aimodel ready to execute: Core AI itself on a Mac; elsewhere Apple's interpreter, or our evaluator for large networks."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.backends.base import Execute, Runtime
from dq_toolchain.backends.common.call import OUTPUT
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.coreai.asset import load
from dq_toolchain.backends.coreai.evaluator.macs import apples_seconds, macs
from dq_toolchain.backends.coreai.evaluator.program import Function, functions
from dq_toolchain.backends.coreai.runtime.apple import Model
from dq_toolchain.backends.coreai.vendor import VERSIONS
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.versions import own_version

INTERPRETER = "Apple's Core AI interpreter"
EVALUATOR = "dq-toolchain evaluator of .aimodel programs"
SECONDS = 60
"""The longest that one call may take with Apple's interpreter."""
Call = Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""(function, inputs by name) -> outputs by name."""


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
    call, runtime = opened(asset, schedule.method_of_step)

    def step(k: int, sample: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        inputs = schedule.call(k, sample, timestep, conditioning).named
        return call(schedule.method_of_step[k], inputs)[OUTPUT]

    return step, replace(runtime, load_ms=(time.perf_counter() - start) * 1e3)


def opened(asset: Path, methods: Sequence[str]) -> tuple[Call, Runtime]:
    """What executes some functions of an asset. Raises BackendError: it does not load."""
    return _open_macos(asset) if sys.platform == "darwin" else _open_here(asset, methods)


def _open_macos(asset: Path) -> tuple[Call, Runtime]:
    return Model(asset), Runtime("Core AI", platform.mac_ver()[0], "as Core AI chooses", 0.0)


def _open_here(asset: Path, methods: Sequence[str]) -> tuple[Call, Runtime]:
    """Apple's interpreter where a call takes it a minute at most, our evaluator above that. Raises BackendError: see above."""
    program = load(asset)
    graphs = [program.functions[name] for name in set(methods)]
    seconds = max(apples_seconds(program, graph) for graph in graphs)
    size = f"{max(macs(program, graph) for graph in graphs) / 1e9:.3g} GMAC a call"
    if seconds <= SECONDS:
        unit = (
            f"CPU, in float: no compute unit of a device ({size}; up to about {SECONDS} s Apple's interpreter executes)"
        )
        return Model(asset), Runtime(INTERPRETER, VERSIONS["coreai-core"], unit, 0.0)
    executors = functions(program, set(methods))
    unit = (
        f"CPU, torch {torch.__version__}: not Core AI ({size}, for which Apple's interpreter takes about {seconds:.0f} s; "
        f"above {SECONDS} s this evaluator executes)"
    )
    return _Alone(executors), Runtime(EVALUATOR, own_version(), unit, 0.0)


class _Alone:
    """Functions of which only the last one that was called keeps its constants: each has gigabytes around them otherwise."""

    def __init__(self, executors: Mapping[str, Function]) -> None:
        self.executors, self.last = executors, ""

    def __call__(self, name: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if name != self.last and self.last:
            self.executors[self.last].kept.clear()
        self.last = name
        return self.executors[name](inputs)
