"""What JSON holds, taken as what it is."""

from __future__ import annotations

import re
from typing import Any


# JSON says what it means; Python's int(), float() and str() would take text for numbers and numbers for text.
def as_list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} must be a list, got {type(value).__name__}")
    return value


def as_integer(value: Any, what: str) -> int:
    if type(value) is not int:
        raise ValueError(f"{what} must be integers, got {value!r}")
    return value


def as_number(value: Any, what: str) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{what} must be a number, got {value!r}")
    return float(value)


def as_text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text, got {value!r}")
    return value


def as_name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}", value):
        raise ValueError(f"{what} must be a plain name of letters, digits, _ . and -, got {value!r}")
    return value
