"""onnx, onnx_ir, onnxscript and onnxruntime: imported when they are needed, quietly, and once."""

from __future__ import annotations

import functools
from typing import Any

from dq_toolchain.backends.common.quiet import Noise
from dq_toolchain.backends.common.vendors import library

INSTALL = "pip install 'dq-toolchain[onnx]'"
NOISE = Noise(loggers=("torch.onnx", "onnxscript"))
LIBRARIES = ("onnx", "onnx_ir", "onnxscript", "onnxruntime")
"""What the host needs to write graphs and to execute them on its CPU."""


def _module(name: str) -> Any:
    return library(name, "a program of ONNX graphs", INSTALL, NOISE)


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
    """The runtime that stands in for the device's."""
    return _module("onnxruntime")
