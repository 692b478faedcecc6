"""The only place that imports coremltools: lazily, quietly, and once.

Importing this module imports nothing of the vendor; each function does when it is called.
"""

from __future__ import annotations

import functools
from typing import Any

from dq_toolchain.backends.common.quiet import Noise
from dq_toolchain.backends.common.vendors import vendor_module

INSTALL = "pip install 'dq-toolchain[coreml]'"
LIBRARY = "coremltools"
NOISE = Noise(
    loggers=("coremltools",),
    native=(b"Converting PyTorch Frontend ==> MIL Ops", b"Running MIL "),  # progress bars
    modules=("coremltools",),
)


def _module(name: str) -> Any:
    return vendor_module(name, "coreml", INSTALL, NOISE)


@functools.cache
def coremltools() -> Any:
    """The package itself."""
    return _module("coremltools")


@functools.cache
def model_proto() -> Any:
    """The protobuf module of Core ML models."""
    return _module("coremltools.proto.Model_pb2")


@functools.cache
def mil_proto() -> Any:
    """The protobuf module of ML Programs."""
    return _module("coremltools.proto.MIL_pb2")


def restore_program(spec: Any, weights: str) -> Any:
    """The PyMIL program of a specification, with constants read from the folder ``weights``.

    coremltools reads a constant again for every function that holds it; here functions share what they share on disk.
    """
    loader = _module("coremltools.converters.mil.frontend.milproto.load")
    read, known = loader._load_value, {}

    def read_once(context: Any, value: Any) -> Any:
        if value.WhichOneof("value") != "blobFileValue":
            return read(context, value)
        key = value.SerializeToString(deterministic=True)
        if key not in known:
            known[key] = read(context, value)
        return known[key]

    loader._load_value = read_once
    try:
        return loader.load(spec, spec.specificationVersion, weights)
    finally:
        loader._load_value = read


def type_name(dtype: Any) -> str:
    """MIL's name of a type: "fp16", "int8", ..."""
    return str(mil_types().builtin_to_string(dtype))


def surgery() -> tuple[Any, Any]:
    """coremltools' functions (program, index) -> program that keep what is up to an operation, or what is behind it."""
    utils = _module("coremltools.models.utils")
    return utils._make_first_chunk_prog, utils._make_second_chunk_prog


def mil_types() -> Any:
    """The module of MIL's types."""
    return _module("coremltools.converters.mil.mil.types")


def mil_builder() -> Any:
    """MIL's builder of operations."""
    return _module("coremltools.converters.mil.mil").Builder


def mil_passes() -> tuple[Any, Any]:
    """The base class of graph passes and the module in which they register."""
    base = _module("coremltools.converters.mil.mil.passes.graph_pass").AbstractGraphPass
    return base, _module("coremltools.converters.mil.mil.passes.pass_registry")
