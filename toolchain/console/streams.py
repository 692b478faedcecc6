"""Standard streams that nobody reads: a closed one, or a pipe whose reader has gone (``| head -1``).

What a command decided is its exit code, and that does not depend on who reads what it prints.
"""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO, cast


def guard_streams() -> None:
    """Called once, before anything is printed or opened: from here on writing to stdout and stderr never fails for want of a
    reader, and to stderr not for want of space either (there is no other place to say so). A closed one leads to the null device,
    so that no file opened later gets its number and is printed into."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            _to_null(number)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    sys.stdout = cast(TextIO, _Unread(sys.stdout, BrokenPipeError))
    sys.stderr = cast(TextIO, _Unread(sys.stderr, OSError))


def drop_stdout() -> None:
    """What is still to be written to stdout is lost, so that leaving the program does not try again."""
    _to_null(1)


def _to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)


class _Unread:
    """A text stream that leads to the null device from its first loss of that kind on; all else is the stream's own."""

    def __init__(self, stream: TextIO, loss: type[OSError]) -> None:
        self._stream = stream
        self._loss = loss

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except self._loss:
            _to_null(self._stream.fileno())
            return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        try:
            self._stream.flush()
        except self._loss:
            _to_null(self._stream.fileno())
            self._stream.flush()
