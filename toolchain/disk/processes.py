"""Which processes live: their names hold more than the pid, which the system gives out again and other machines give out too."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from dataclasses import dataclass

import psutil

SAME_START = 60.0
"""Seconds within which two readings of a process's start are the same; a later start is another process, same pid.
The system derives it from a clock that is set now and then."""


@dataclass(frozen=True)
class Process:
    """A process among all those that may share a disk: ``place`` is where its pid counts, ``start`` seconds of the epoch."""

    pid: int
    start: int
    place: str

    @property
    def is_gone(self) -> bool | None:
        """None where this process cannot know, since pids of other machines and containers are not seen here."""
        return None if self.place != place() else not alive(self.pid, self.start)


def alive(pid: int, start: float) -> bool:
    """Whether the process that had this pid and start still runs here."""
    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - start) < SAME_START)
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False
    except psutil.AccessDenied:
        return True


def this_process() -> Process:
    return Process(os.getpid(), int(psutil.Process().create_time()), place())


@functools.cache
def place() -> str:
    """A short name of this machine and, where there are containers, of the one that numbers our pids."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]
