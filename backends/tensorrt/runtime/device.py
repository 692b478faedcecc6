"""A bundle ready to execute: TensorRT where it is installed and engines were built, ONNX Runtime elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from dq_toolchain.backends.base import Execute, Runtime
from dq_toolchain.backends.common.onnx.libraries import onnxruntime
from dq_toolchain.backends.common.onnx.session import Program, Sessions, executor
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.tensorrt.runtime.engines import Engines
from dq_toolchain.backends.tensorrt.vendor import tensorrt
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Bundle


def open_bundle(bundle: Bundle, folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    """What executes a bundle here.

    Raises:
        BackendError: the engines are missing or do not load, or threads were given for a GPU.
    """
    start = time.perf_counter()
    library, schedule = tensorrt(), Schedule.of(bundle, folder)
    if library is None or not torch.cuda.is_available():
        why = "TensorRT is not installed" if library is None else "torch sees no CUDA device"
        program: Program = Sessions(folder / bundle.program, threads)
        name, version, unit = "ONNX Runtime", str(onnxruntime().__version__), f"CPU: not TensorRT, {why}"
    else:
        if threads is not None:
            raise BackendError("threads cannot be set for TensorRT, it runs on the GPU; leave --threads out")
        program = Engines(library, folder, bundle.methods)
        name, version, unit = "TensorRT", str(library.__version__), torch.cuda.get_device_name()
    return executor(program, schedule), Runtime(name, version, unit, (time.perf_counter() - start) * 1e3)
