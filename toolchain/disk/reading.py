"""Foreign files as text, JSON or TOML: one layer that every reader goes through, so that a malformed file of any kind
ends in one short error.

Sizes are bounded before memory is taken; a file that is no regular file (a FIFO, a device) is refused and never waited on.
"""

from __future__ import annotations

import json
import math
import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dq_toolchain.toolchain.errors import ToolchainError

LARGEST = 64 * 2**20
"""Bytes of a text file; the longest that a published model has is a tokenizer of some 30 MB."""
DEEPEST = 100
"""Levels of nesting; configs have three or four."""
WHOLE = 2**63


def read_text(path: Path, *, error: type[ToolchainError], remedy: str, largest: int = LARGEST) -> str:
    """The text of a regular file in UTF-8; a byte order mark in front is left out.

    Args:
        error: what to raise. remedy: what the user should do, the end of its text.
        largest: bytes that the file may have.
    Raises:
        error: missing, unreadable, no regular file, too large, or not UTF-8.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise error(f"cannot read {path}: it is no regular file; {remedy}")
            if status.st_size > largest:
                raise error(f"cannot read {path}: it has {status.st_size:,} bytes, allowed are {largest:,}; {remedy}")
            return stream.read(largest + 1).decode("utf-8-sig")
    except (OSError, ValueError) as fault:
        raise error(f"cannot read {path}: {reason(fault)}; {remedy}") from fault


def read_json(
    path: Path, *, error: type[ToolchainError], remedy: str, finite: bool = True, largest: int = LARGEST
) -> dict[str, Any]:
    """A JSON object; ``finite`` refuses NaN and infinity, which JSON does not have but Python writes.

    Raises:
        error: as ``read_text``; not JSON, no object, a key twice in one object, nested too deep, a number that no float
            or int64 holds, or text that is not Unicode (a lone surrogate).
    """
    text = read_text(path, error=error, remedy=remedy, largest=largest)
    try:
        data = json.loads(
            text, object_pairs_hook=_each_once, parse_constant=_refuse_constant if finite else None,
            parse_float=_float, parse_int=_int,
        )  # fmt: skip
        if not isinstance(data, dict):
            raise error(f"{path} holds a {type(data).__name__}, expected a JSON object; {remedy}")
        for value, depth in _walk(data):
            _check(value, depth)
    except (ValueError, RecursionError) as fault:
        raise error(f"{path} is not valid JSON ({reason(fault)}); {remedy}") from fault
    return data


def read_toml(path: Path, *, error: type[ToolchainError], remedy: str) -> dict[str, Any]:
    """A TOML document. Raises ``error``: as ``read_text``, or not TOML."""
    text = read_text(path, error=error, remedy=remedy)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as fault:
        raise error(f"{path} is not valid TOML: {reason(fault)}; {remedy}") from fault


def reason(fault: Exception) -> str:
    """Why a file could not be read or written, on one line."""
    if isinstance(fault, RecursionError):
        return "nested too deep"
    if isinstance(fault, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(fault, FileExistsError):
        return f"{fault.filename} is a file, not a folder"
    text = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
    return " ".join(text.split())[:300]


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(n for n in names if names.count(n) > 1)[:40]!r} twice in one object")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is larger than any float")
    return value


def _int(text: str) -> int:
    if len(text) > 20 or not -WHOLE <= int(text) < WHOLE:
        raise ValueError(f"{text[:20]}... is larger than 64 bits hold")
    return int(text)


def _walk(data: Any) -> Iterator[tuple[Any, int]]:
    waiting = [(data, 1)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        if isinstance(value, dict):
            waiting.extend((part, depth + 1) for pair in value.items() for part in pair)
        elif isinstance(value, list):
            waiting.extend((part, depth + 1) for part in value)


def _check(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError("nested too deep")
    if isinstance(value, str) and not value.isascii():
        value.encode()  # a lone surrogate raises, a ValueError
