"""The numbers that modules fix and no recipe sets: part of what decides a calibration, and of its record."""

from __future__ import annotations

import importlib
from typing import Any

PACKAGE = "dq_toolchain.calibrate."


def constants_of(*modules: str) -> dict[str, Any]:
    """``module.NAME`` -> number, or tuple of numbers, of every constant in capitals that the modules hold or import.

    Read when called, and by their looks, so that a constant that is added later cannot be forgotten.

    Args:
        modules: below ``dq_toolchain.calibrate``, with or without that prefix.
    """
    found: dict[str, Any] = {}
    for module in modules:
        short = module.removeprefix(PACKAGE)
        for name, value in sorted(vars(importlib.import_module(PACKAGE + short)).items()):
            if name.isupper() and _is_number(value):
                found[f"{short}.{name}"] = list(value) if isinstance(value, tuple) else value
    return found


def _is_number(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(map(_is_number, value))
    return isinstance(value, int | float)
