"""The only place that imports onnxruntime_qnn: Qualcomm's compiler and its emulator of the NPU, from PyPI.

The plugin (MIT) and Qualcomm's libraries (under Qualcomm's own licence) come in one wheel. Who installs it accepts that licence, so
nothing of it is part of this project or of a bundle's programs, and an export needs it only for ``--soc`` and ``--check-build``.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dq_toolchain.backends.base import installed_version
from dq_toolchain.backends.common.onnx.libraries import onnxruntime
from dq_toolchain.backends.common.quiet import Noise
from dq_toolchain.backends.common.vendors import vendor_module
from dq_toolchain.toolchain.errors import BackendError

WHEEL, PINNED = "onnxruntime-qnn", "2.7.0"
INSTALL_COMPILER = "pip install 'dq-toolchain[qnn]'"
LICENCE = "its libraries are under Qualcomm's AI Stack License, which you accept by installing them"
NOISE = Noise()


def has_compiler() -> bool:
    """Whether Qualcomm's wheel is installed; nothing is imported."""
    return find_spec("onnxruntime_qnn") is not None


def compiler_version() -> str | None:
    """Version of the wheel, None where it is not installed."""
    return installed_version(WHEEL)


def require_compiler(what: str) -> None:
    """Raise BackendError unless Qualcomm's compiler is installed; the text says how it is had.

    Args:
        what: needs it, such as "--soc".
    """
    if not has_compiler():
        raise BackendError(
            f"{what} needs Qualcomm's compiler, the wheel {WHEEL}, which is not installed ({LICENCE}); install it with: "
            f"{INSTALL_COMPILER}"
        )


@functools.cache
def runtime() -> Any:
    """ONNX Runtime, with Qualcomm's provider registered: once per process.

    Raises:
        BackendError: either library is missing, or ONNX Runtime does not take the provider.
    """
    require_compiler("this")
    ort = onnxruntime()
    wheel = vendor_module("onnxruntime_qnn", "qnn", INSTALL_COMPILER, NOISE)
    try:
        ort.register_execution_provider_library(wheel.get_ep_name(), wheel.get_library_path())
    except Exception as error:  # the runtime's own kinds have no common base
        text = " ".join(str(error).split())
        raise BackendError(
            f"ONNX Runtime {ort.__version__} does not load {WHEEL} {compiler_version()}: {text[:300]}; it needs Linux x86-64 "
            f"with glibc 2.35 or later, and versions that belong together: {INSTALL_COMPILER}"
        ) from error
    return ort


def device() -> Any:
    """The provider's device. Raises BackendError: it offers none here."""
    name = _wheel().get_ep_name()
    found = [device for device in runtime().get_ep_devices() if device.ep_name == name]
    if not found:
        raise BackendError(
            f"{WHEEL} {compiler_version()} offers no device on this machine; it compiles and emulates on Linux x86-64 only"
        )
    return found[0]


def backend_path() -> Path:
    """The library that compiles for the NPU, and emulates it on x86-64."""
    return Path(_wheel().get_qnn_htp_path())


def _wheel() -> Any:
    runtime()
    return vendor_module("onnxruntime_qnn", "qnn", INSTALL_COMPILER, NOISE)
