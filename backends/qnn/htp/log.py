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
)
"""Parts of warnings that every session of this version gives."""
CHATTER = ("# LIBNATIVE:",)
"""Parts of lines without a level that are of no use to anybody."""
_LINE = re.compile(r"\[(?P<level>[VIWEF]):onnxruntime:[^,]*, (?P<where>[^\]]*)\] (?P<text>.*)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_REFUSED = re.compile(r"\{ name: (?P<name>.*?), type: (?P<kind>\w+) \}")


@dataclass(frozen=True)
class Log:
    """What was logged, in order. ``warnings`` and ``errors`` are texts without time and place; none stands twice."""

    warnings: tuple[str, ...]
    errors: tuple[str, ...]

    @property
    def refused(self) -> tuple[str, ...]:
        """``name (kind)`` of the nodes that the compiler does not take, as the log names them."""
        found = (match for text in self.errors for match in _REFUSED.finditer(text))
        return tuple(dict.fromkeys(f"{match['name']} ({match['kind']})" for match in found))


def read_log(text: str) -> tuple[Log, str]:
    """Warnings and errors of what was written, and the rest, which is not the runtime's log."""
    levels: dict[str, list[str]] = {"W": [], "E": []}
    rest = []
    for raw in text.splitlines(keepends=True):
        match = _LINE.search(_COLOUR.sub("", raw))
        if match is None:
            rest.append("" if any(part in raw for part in CHATTER) else raw)
            continue
        kept, said = levels.get("E" if match["level"] in "EF" else match["level"], []), match["text"].strip()
        if said and said not in kept and not any(part in said for part in NO_MATTER):
            kept.append(said)
    return Log(tuple(levels["W"]), tuple(levels["E"])), "".join(rest)


class Caught:
    """What was logged so far."""

    def __init__(self, files: dict[int, IO[bytes]]) -> None:
        self._files = files

    def log(self) -> Log:
        return read_log("\n".join(_content(file) for file in self._files.values()))[0]


@contextlib.contextmanager
def caught() -> Iterator[Caught]:
    """Meanwhile what this process writes to its file descriptors 1 and 2 is held back; at the end all but the log goes there.

    Native code writes there itself, and stdout belongs to results. Another thread may draw a bar meanwhile, which must not be lost.
    """
    with contextlib.ExitStack() as stack:
        saved: dict[int, int] = {}
        files: dict[int, IO[bytes]] = {}
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        try:
            for descriptor in (1, 2):
                with contextlib.suppress(OSError):  # a descriptor that is closed
                    saved[descriptor] = os.dup(descriptor)
                    files[descriptor] = stack.enter_context(tempfile.TemporaryFile())
                    os.dup2(files[descriptor].fileno(), descriptor)
            yield Caught(files)
        finally:
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)
                rest = read_log(_content(files[descriptor]))[1].encode()
                while rest:
                    rest = rest[os.write(descriptor, rest) :]


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    text = file.read().decode("utf-8", "replace")
    file.seek(0, os.SEEK_END)
    return text
