"""Claims on cells, so that several processes work on one grid: a lock file names the process that holds it.

A process that was killed leaves its lock behind; the next one sees that the process is gone and takes the lock over.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dq_toolchain.toolchain.disk.processes import alive


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """True if the lock is ours until the end of the block, False if a living process holds it.

    Raises:
        OSError: the lock cannot be written.
    """
    ours = _take(path)
    try:
        yield ours
    finally:
        if ours:
            path.unlink(missing_ok=True)


def held(path: Path) -> bool:
    """Whether a living process, this one included, holds the lock."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return alive(int(holder["pid"]), float(holder["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process is in a block with this path. The system frees it when its process dies.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _take(path: Path) -> bool:
    """Look, remove what is dead and create, as one act."""
    with alone(path.parent / ".claims"):
        if held(path):
            return False
        path.unlink(missing_ok=True)
        text = json.dumps({"pid": os.getpid(), "started": psutil.Process().create_time()})
        with path.open("x", encoding="utf-8") as lock:
            lock.write(text)
        return True
