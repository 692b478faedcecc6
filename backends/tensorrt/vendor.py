"""The only place that imports tensorrt: lazily and quietly. What this target shares with others is in ``common/onnx``."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

from dq_toolchain.backends.common.quiet import Noise, quiet

INSTALL = "pip install 'dq-toolchain[tensorrt]'"


@functools.cache
def tensorrt() -> Any | None:
    """NVIDIA's own library, which comes with JetPack or from NVIDIA; None where it is not installed or does not load."""
    if importlib.util.find_spec("tensorrt") is None:
        return None
    try:
        with quiet(Noise()):
            return importlib.import_module("tensorrt")
    except (ImportError, OSError):
        return None
