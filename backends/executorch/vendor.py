"""The only place that imports executorch: lazily, quietly, and once.

Importing this module imports nothing of the vendor; each function does when it is called.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

from dq_toolchain.backends.common.quiet import Noise, quiet
from dq_toolchain.backends.common.vendors import vendor_module

INSTALL = "pip install 'dq-toolchain[executorch]'"
LIBRARY = "executorch"
NOISE = Noise(
    loggers=("executorch",),
    native=(b"cpuinfo_utils.cpp", b"] Resetting threadpool to "),
    modules=("executorch",),
)


def _module(name: str) -> Any:
    return vendor_module(name, "executorch", INSTALL, NOISE)


@functools.cache
def lowering() -> SimpleNamespace:
    """to_edge_transform_and_lower, EdgeCompileConfig, XnnpackPartitioner."""
    exir = _module("executorch.exir")
    partitioner = _module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    return SimpleNamespace(
        to_edge_transform_and_lower=exir.to_edge_transform_and_lower,
        EdgeCompileConfig=exir.EdgeCompileConfig,
        XnnpackPartitioner=partitioner.XnnpackPartitioner,
    )


@functools.cache
def serialization() -> SimpleNamespace:
    """deserialize_pte_binary, XNNHeader, and the text of XNNPACK's flatbuffer schema."""
    program = _module("executorch.exir._serialize._program")
    graph = _module("executorch.backends.xnnpack.serialization.xnnpack_graph_serialize")
    return SimpleNamespace(
        deserialize_pte_binary=program.deserialize_pte_binary,
        XNNHeader=graph.XNNHeader,
        xnnpack_schema=graph._get_schema_bytes().decode(),
    )


@functools.cache
def runtime() -> Any:
    """The Runtime singleton of executorch.runtime."""
    return _module("executorch.runtime").Runtime.get()


def bindings() -> Any:
    """ExecuTorch's native module, which reads a program without torch."""
    return _module("executorch.extension.pybindings._C")


def set_threads(count: int) -> None:
    """Threads of XNNPACK's pool, process-wide; only safe while no program runs."""
    library = _module("executorch.extension.pybindings.portable_lib")
    with quiet(NOISE):
        library._unsafe_reset_threadpool(count)
