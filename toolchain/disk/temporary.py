"""Names of files and folders that are being written, and the removal of those whose writer is dead.

``.NAME.PID-START-PLACE.tmp`` beside the target: the next writer in that folder sees which ones a killed process left.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from pathlib import Path

import psutil

from dq_toolchain.toolchain.disk.processes import Process, this_process

OURS = re.compile(r"\..+\.(?P<pid>\d{1,10})-(?P<start>\d{1,12})-(?P<place>[0-9a-f]{8})\.tmp")
EARLIER = re.compile(
    r"\.([\w.-]+\.(safetensors|pte)|(calibration|bundle|report|cell)\.json|executorch|coreml|tensorrt)\.(?P<pid>\d{1,10})\.tmp"
)
"""As earlier versions named them; other programs' files may be called alike, so only what those versions wrote."""
FORGOTTEN = 24 * 3600.0
"""Seconds after which a temporary of a machine that cannot be asked is taken for dead: none is written that long."""

_swept: set[tuple[int, Path]] = set()


def temporary_beside(path: Path) -> Path:
    """A name for what will take the place of ``path``, of this process alone; dead ones beside it are removed first."""
    sweep(path.parent, once=True)
    me = this_process()
    return path.with_name(f".{path.name}.{me.pid}-{me.start}-{me.place}.tmp")


def sweep(folder: Path, once: bool = False) -> None:
    """Remove temporaries in a folder whose process is dead; what cannot be removed stays.

    Args:
        once: a process looks into each folder one time.
    """
    if once:
        key = (os.getpid(), folder.absolute())
        if key in _swept:
            return
        _swept.add(key)
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(".") and entry.name.endswith(".tmp") and _is_left_over(Path(entry.path)):
                _remove(Path(entry.path))


def _is_left_over(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if (found := OURS.fullmatch(path.name)) is not None:
            gone = Process(int(found["pid"]), int(found["start"]), found["place"]).is_gone
            return time.time() - _last_change(path) > FORGOTTEN if gone is None else gone
        if (found := EARLIER.fullmatch(path.name)) is not None:
            return _gone_since(int(found["pid"]), path.lstat().st_mtime)
    return False


def _gone_since(pid: int, written: float) -> bool:
    """Whether no process has the pid, or one that began after the file was last written."""
    try:
        return bool(psutil.Process(pid).create_time() > written)
    except (psutil.NoSuchProcess, OverflowError):
        return True
    except psutil.AccessDenied:
        return False


def _last_change(path: Path) -> float:
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return float(max(each.lstat().st_mtime for each in (path, *inside)))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            shutil.rmtree(path, ignore_errors=True)
        elif stat.S_ISREG(mode):
            path.unlink()


def kind_of(path: Path) -> str:
    """What a path is, in words."""
    kinds = {"is_symlink": "a link", "is_file": "a file", "is_dir": "a folder", "is_fifo": "a FIFO", "is_socket": "a socket",
             "is_char_device": "a device", "is_block_device": "a device"}  # fmt: skip
    return next((words for test, words in kinds.items() if getattr(path, test)()), "nothing")
