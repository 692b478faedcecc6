"""The only place that imports Apple's coreai-core and coreai-torch: lazily, quietly, and once.

Importing this module imports nothing of the vendor; each function does when it is called. Both are betas whose versions are
pinned exactly: what is read and patched has no public name yet (``ir.py``).
"""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dq_toolchain.backends.common.quiet import Noise
from dq_toolchain.backends.common.vendors import vendor_module
from dq_toolchain.toolchain.errors import BackendError

INSTALL = "pip install 'dq-toolchain[coreai]'"
VERSIONS = {"coreai-core": "1.0.0b3", "coreai-torch": "0.4.3"}
"""Those of pyproject.toml, on which everything here was measured."""
LIBRARIES = tuple(VERSIONS)
NOISE = Noise(
    loggers=("coreai", "coreai_torch"),
    native=(b"coreai-torch ", b"ODIE [default]: Loading function"),  # progress
    modules=("coreai", "coreai_torch", "importlib"),  # which version of torch it was tested with
)


def version_fault() -> str | None:
    """What of the installed versions does not fit, in one line; None if all do. Nothing is imported."""
    for library, wanted in VERSIONS.items():
        try:
            found = version(library)
        except PackageNotFoundError:
            return f"target 'coreai' needs {library} {wanted}, which is not installed; install it with: {INSTALL}"
        if found != wanted:
            return (
                f"target 'coreai' needs {library} {wanted}, a beta whose next version may read files otherwise, got {found}; "
                f"install it with: {INSTALL}"
            )
    return None


def _module(name: str) -> Any:
    if (fault := version_fault()) is not None:
        raise BackendError(fault)
    return vendor_module(name, "coreai", INSTALL, NOISE)


@functools.cache
def authoring() -> Any:
    """Assets and programs."""
    return _module("coreai.authoring")


@functools.cache
def runtime() -> Any:
    """Apple's interpreter, and on a Mac Core AI itself."""
    return _module("coreai.runtime")


@functools.cache
def converter() -> Any:
    """coreai-torch."""
    return _module("coreai_torch")


@functools.cache
def operators() -> Any:
    """torch's namespace of Core AI's quantization operators, which the converter recognises."""
    _module("coreai_torch._compression.custom_layers")  # registers them
    import torch  # a target describes itself without it

    return torch.ops.coreai


@functools.cache
def mlir() -> Any:
    """MLIR's Python bindings, private."""
    return _module("coreai._compiler.ir")


@functools.cache
def dialect() -> Any:
    """The builders of Core AI's operations, private."""
    return _module("coreai._compiler.dialects.coreai")


@functools.cache
def bindings() -> Any:
    """The native module that copies constants, private."""
    return _module("coreai._compiler._mlir_libs._coreaiIR")._bindings


@functools.cache
def debug_info() -> Any:
    """What removes debug information."""
    return _module("coreai_torch.debugging.debug_info")
