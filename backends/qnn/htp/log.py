"""What ONNX Runtime and Qualcomm's libraries write while they compile: caught, and told apart from what never matters here."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

NO_MATTER = (
    "File mapped weights feature is only available on Windows",
    "EPContext encryption config unavailable",
    "Unable to get producer node for OrtValueInfo",
    "LIBNATIVE",
)
"""Parts of warnings that every session of this version gives."""
_LINE = re.compile(r"\[(?P<level>[VIWEF]):onnxruntime:[^,]*, (?P<where>[^\]]*)\] (?P<text>.*)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_REFUSED = re.compile(r"\{ name: (?P<name>.*?), type: (?P<kind>\w+) \}")


@dataclass(frozen=True)
class Log:
    """Lines of a compilation, in order. ``warnings`` and ``errors`` are texts without time and place; none stands twice."""

    warnings: tuple[str, ...]
    errors: tuple[str, ...]

    @property
    def refused(self) -> tuple[str, ...]:
        """``name (kind)`` of the nodes that the compiler does not take, as the log names them."""
        found = (match for text in self.errors for match in _REFUSED.finditer(text))
        return tuple(dict.fromkeys(f"{match['name']} ({match['kind']})" for match in found))


def read_log(text: str) -> Log:
    """Warnings and errors of what was written."""
    levels: dict[str, list[str]] = {"W": [], "E": []}
    for raw in text.splitlines():
        line = _COLOUR.sub("", raw).strip()
        match = _LINE.search(line)
        level, said = ("E" if match["level"] in "EF" else match["level"], match["text"]) if match else ("W", line)
        if said and level in levels and not any(part in said for part in NO_MATTER) and said not in levels[level]:
            levels[level].append(said)
    return Log(tuple(levels["W"]), tuple(levels["E"]))


class Caught:
    """What was written so far; ``log()`` reads it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def log(self) -> Log:
        self._file.flush()
        self._file.seek(0)
        text = self._file.read().decode("utf-8", "replace")
        self._file.seek(0, os.SEEK_END)
        return read_log(text)


@contextlib.contextmanager
def caught() -> Iterator[Caught]:
    """Meanwhile whatever is written to the file descriptors 1 and 2 of this process goes to a file instead.

    Native code writes there itself, and stdout belongs to results.
    """
    with tempfile.TemporaryFile() as file:
        saved: dict[int, int] = {}
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        try:
            for descriptor in (1, 2):
                with contextlib.suppress(OSError):  # a descriptor that is closed
                    saved[descriptor] = os.dup(descriptor)
                    os.dup2(file.fileno(), descriptor)
            yield Caught(file)
        finally:
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)
