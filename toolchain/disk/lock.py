"""One job per output folder: a lock that the system frees when its process dies, and that says who holds it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dq_toolchain.toolchain.console.printable import printable
from dq_toolchain.toolchain.disk.reading import read_json, reason
from dq_toolchain.toolchain.errors import ToolchainError

if sys.platform != "win32":
    import fcntl

NAME = ".dq-toolchain.lock"
UNKNOWN = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
"""What file systems answer, and here other systems, that have no locks."""


@contextlib.contextmanager
def locked(folder: Path, job: str, warn: Callable[[str], None] = lambda _line: None) -> Iterator[None]:
    """Hold the folder's lock while inside. The folder is made if it is not there, and goes again if it is empty at the end.

    Args:
        job: what the holder is doing there, such as "calibrate", for those that are refused.
        warn: is told where the file system has no locks; the job goes on then.
    Raises:
        ToolchainError: another process holds it; the text says which, where and since when. Or nothing can be written there.
    """
    path = folder / NAME
    descriptor: int | None
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _take(path)
    except BlockingIOError:
        raise ToolchainError(
            f"{folder} is in use: {_holder(path)}; wait until it ends, stop it, or choose another folder (--out)"
        ) from None
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise ToolchainError(
                f"cannot write {folder}: {reason(error)}; choose a folder that you may write to (--out)"
            ) from error
        warn(f"{folder} cannot be locked ({error.strerror}): let no other job write there meanwhile")
        descriptor = None
        with contextlib.suppress(OSError):
            path.unlink()
    try:
        if descriptor is not None:
            _sign(descriptor, job)
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                path.unlink()  # while it is held: who waits for the old file sees that it is no longer the one there
            os.close(descriptor)
        with contextlib.suppress(OSError):
            for each in made:
                each.rmdir()


def _take(path: Path) -> int:
    """The open lock file. Raises BlockingIOError: held by another."""
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "this system has no such locks")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.lstat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before us removed it between our opening and our locking it


def _sign(descriptor: int, job: str) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since, "job": job})
    with contextlib.suppress(OSError):  # a full disk: the lock holds without its words
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _holder(path: Path) -> str:
    try:
        who = read_json(path, error=ToolchainError, remedy="", largest=4096)
        host, job, since = (printable(str(who[name]))[:80] for name in ("host", "job", "since"))
        return f"process {int(who['pid'])} on {host} has been at {job!r} there since {since}"
    except (ToolchainError, KeyError, TypeError, ValueError):
        return "another process is at work there"
