"""How targets reach their vendors' libraries: when they are needed, quietly, and with advice where one is missing."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from dq_toolchain.backends.common.quiet import Noise, quiet
from dq_toolchain.toolchain.errors import BackendError


def vendor_module(name: str, target: str, install: str, noise: Noise) -> Any:
    """The module ``name`` of a vendor's library.

    Raises:
        BackendError: it does not import; the text says what to install.
    """
    return library(name, f"target {target!r}", install, noise)


def library(name: str, user: str, install: str, noise: Noise) -> Any:
    """As ``vendor_module``, for a library that several targets share. ``user``: what needs it, in words."""
    try:
        with quiet(noise):
            return importlib.import_module(name)
    except ImportError as error:
        text = " ".join(str(error).split())
        raise BackendError(
            f"{user} needs {name.partition('.')[0]}, which does not import ({text}); install it with: {install}"
        ) from error


@functools.cache
def decomposed() -> Any:
    """torch's namespace of quantize and dequantize operators, which lowering and conversion recognise."""
    import torch  # a target describes itself without it

    importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers them
    return torch.ops.quantized_decomposed
