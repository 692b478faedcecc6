"""A bundle ready to execute: its graphs in ONNX Runtime, on the CPU of this machine."""

from __future__ import annotations

import time
from pathlib import Path

from dq_toolchain.backends.base import Execute, Runtime
from dq_toolchain.backends.common.onnx.libraries import onnxruntime
from dq_toolchain.backends.common.onnx.session import Sessions, executor
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.toolchain.formats.bundle import Bundle


def open_bundle(bundle: Bundle, folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    """What executes a bundle here: the graphs, not the contexts, which only a phone loads.

    Raises:
        ArtifactError: the step vectors are missing or of another shape.
    """
    start, schedule = time.perf_counter(), Schedule.of(bundle, folder)
    execute = executor(Sessions(folder / bundle.program, threads), schedule)
    milliseconds = (time.perf_counter() - start) * 1e3
    return execute, Runtime("ONNX Runtime", str(onnxruntime().__version__), "CPU: not the NPU", milliseconds)
