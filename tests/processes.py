"""Processes that start at once: forked from a server that has imported torch and the toolchain, and done nothing else.

A process of its own is what many proofs need (it is killed, it shares work with another, torch is told of a device once
and for all), importing torch for it is not. Where the start of the process is the proof, ``subprocess`` stays.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

STREAMS = ("out", "err")
ROOT = Path(__file__).parents[1]
PRELOADED = ["torch", "diffusers", "dq_toolchain.calibrate.run", "dq_toolchain.toolchain.cli.entry"]
_context = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Ended:
    """What a process left: the signal's number below zero where one ended it, as subprocess has it."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Running:
    """A process that was started."""

    process: ForkServerProcess
    folder: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        """By SIGKILL; returns when it is dead."""
        self.process.kill()
        self.process.join()
        shutil.rmtree(self.folder)

    def end(self, seconds: float = 900) -> Ended:
        """Wait for its end, and kill it after ``seconds``."""
        self.process.join(seconds)
        out, err = ((self.folder / stream).read_text() for stream in STREAMS)
        if self.process.is_alive():
            self.kill()
            raise TimeoutError(f"still running after {seconds} s:\n{err[-2000:]}")
        shutil.rmtree(self.folder)
        assert self.process.exitcode is not None
        return Ended(self.process.exitcode, out, err)


def start(code: str, *arguments: object, **environment: str) -> Running:
    """What ``python -c code arguments`` does, in the folder that is current here and with the environment here."""
    folder = Path(mkdtemp(prefix="dq-process-"))
    for stream in STREAMS:
        (folder / stream).touch()
    _context.set_forkserver_preload(PRELOADED)
    with contextlib.chdir(ROOT):
        forkserver.ensure_running()
    given = (code, list(map(str, arguments)), dict(os.environ) | environment, os.getcwd(), str(folder))
    process = _context.Process(target=_execute, args=given, daemon=True)
    process.start()
    return Running(process, folder)


def run(code: str, *arguments: object, **environment: str) -> Ended:
    """The same, to its end."""
    return start(code, *arguments, **environment).end()


COMMAND = "import sys; from dq_toolchain.toolchain.cli.entry import main; main()"
"""dq-toolchain's own command line."""


def _execute(code: str, arguments: list[str], environment: Mapping[str, str], current: str, folder: str) -> None:
    """In the child: other streams, folder, environment and arguments, then the code, as ``__main__``."""
    for descriptor, stream in enumerate(STREAMS, start=1):
        file = os.open(f"{folder}/{stream}", os.O_WRONLY)
        os.dup2(file, descriptor)
        os.close(file)
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # it may start others
    os.chdir(current)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = ["-c", *arguments]
    own: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(code, "<code>", "exec"), own)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
