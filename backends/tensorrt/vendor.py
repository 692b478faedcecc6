"""The only place that imports onnx, onnx_ir, onnxruntime and tensorrt: lazily, quietly, and once.

Importing this module imports nothing of the vendors; each function does when it is called.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

from dq_toolchain.backends.common.quiet import Noise, quiet
from dq_toolchain.backends.common.vendors import vendor_module

INSTALL = "pip install 'dq-toolchain[tensorrt]'"
NOISE = Noise(loggers=("torch.onnx", "onnxscript"))
LIBRARIES = ("onnx", "onnx_ir", "onnxscript", "onnxruntime")
"""What the host needs. TensorRT itself comes with JetPack, or from NVIDIA."""


def _module(name: str) -> Any:
    return vendor_module(name, "tensorrt", INSTALL, NOISE)


@functools.cache
def onnx() -> Any:
    """The format and its checker."""
    return _module("onnx")


@functools.cache
def onnx_ir() -> Any:
    """Graphs as objects, with tensors that stay on disk."""
    return _module("onnx_ir")


@functools.cache
def graph_passes() -> Any:
    """onnx_ir's passes."""
    return _module("onnx_ir.passes.common")


@functools.cache
def exporter() -> Any:
    """torch.onnx, which needs onnxscript."""
    _module("onnxscript")
    return _module("torch.onnx")


@functools.cache
def onnxruntime() -> Any:
    """The runtime that stands in for TensorRT."""
    return _module("onnxruntime")


@functools.cache
def tensorrt() -> Any | None:
    """NVIDIA's own library, None where it is not installed or does not load."""
    if importlib.util.find_spec("tensorrt") is None:
        return None
    try:
        with quiet(NOISE):
            return importlib.import_module("tensorrt")
    except (ImportError, OSError):
        return None
