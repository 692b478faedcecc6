"""A command in a process of its own, and the most memory that it and its children held."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL = 0.5
"""Seconds between two looks at the process."""


@dataclass(frozen=True)
class Watched:
    """What a command took.

    Attributes:
        peak_gib: resident, file pages that are mapped included, which the system can drop.
        anonymous_gib: the most that it cannot drop: memory of no file. At another moment than ``peak_gib`` perhaps.
    """

    seconds: float
    peak_gib: float
    anonymous_gib: float

    def to_json(self) -> dict[str, Any]:
        return {name: round(value, 2) for name, value in vars(self).items()}


def watched(
    arguments: Sequence[str], *, limit_gib: float | None = None, output: Any = sys.stderr, errors: Any = None
) -> Watched:
    """Run Python with these arguments.

    Args:
        limit_gib: of anonymous memory; beyond it the process is killed. output, errors: where its standard output and error go.
    Raises:
        CalledProcessError: it ended with another code than 0; MemoryError: it was killed; the text says at which peak.
    """
    begin, resident, anonymous = time.perf_counter(), 0, 0
    process = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=errors)
    while process.poll() is None:
        now, unnamed = _held(process.pid)
        resident, anonymous = max(resident, now), max(anonymous, unnamed)
        if limit_gib is not None and unnamed > limit_gib * 2**30:
            process.kill()
            process.wait()
            raise MemoryError(f"killed at {unnamed / 2**30:.1f} GiB after {time.perf_counter() - begin:.0f} s")
        time.sleep(POLL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Watched(time.perf_counter() - begin, resident / 2**30, anonymous / 2**30)


def _held(pid: int) -> tuple[int, int]:
    """Bytes of a process and its children: resident, of the process the most so far (VmHWM), and anonymous."""
    own, *others = map(_status, (pid, *_children(pid)))
    resident = own.get("VmHWM", 0) + sum(each.get("VmRSS", 0) for each in others)
    return resident, sum(each.get("RssAnon", 0) for each in (own, *others))


def _children(pid: int) -> Iterator[int]:
    """Of all its threads, and theirs."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = [int(child) for child in task.read_text(encoding="ascii").split()]
        except OSError:  # it has ended
            continue
        for child in found:
            yield child
            yield from _children(child)


def _status(pid: int) -> dict[str, int]:
    """Sizes that Linux tells of a process, bytes; none of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    sizes = (line.split() for line in lines if line.startswith(("VmHWM", "VmRSS", "RssAnon")))
    return {name.rstrip(":"): int(size) * 1024 for name, size, *_ in sizes}
