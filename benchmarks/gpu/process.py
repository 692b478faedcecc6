"""One part in a process of its own: what crashes, hangs or runs out of memory there loses that part and nothing else."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from benchmarks.gpu.parts import Part
from benchmarks.gpu.record import Plan, Record


@dataclass(frozen=True)
class Ended:
    """``state``: "done", "stopped at its limit" or "failed". ``reason``: of a failure, the last line of the log."""

    state: str
    reason: str | None = None


def starter(fork: bool) -> BaseContext:
    """How processes are started: forked, with everything imported already, or from nothing.

    The parent has to be one that never asked anything of the GPU, nor computed: CUDA and OpenMP do not outlive a fork.
    """
    return multiprocessing.get_context("fork" if fork else "spawn")


def run_part(part: Part, plan: Plan, file: Path, start: BaseContext) -> Ended:
    """Run a part to its end or its limit; then nothing that it started is left.

    Args:
        file: its record; its log is beside it.
    """
    log = file.with_suffix(".log")
    process = start.Process(target=_enter, args=(part, plan, file, log), name=part.name)  # type: ignore[attr-defined]
    process.start()
    try:
        process.join(plan.seconds)
        if process.exitcode is None:
            return Ended("stopped at its limit")
    finally:  # also when this process is told to end
        end(process)
    if process.exitcode == 0:
        return Ended("done")
    return Ended("failed", f"exit code {process.exitcode}: {_last_line(log)}")


def _enter(part: Part, plan: Plan, file: Path, log: Path) -> None:
    os.setsid()  # a group of its own, which can be ended with all that it started
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    importlib.import_module(part.module).run(Record(path=file), plan)


def end(process: BaseProcess) -> None:
    """Kill a process and everything that it started."""
    assert process.pid is not None
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in children:  # those that left the group
        with contextlib.suppress(psutil.Error):
            child.kill()
    process.kill()
    process.join()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it said nothing")
