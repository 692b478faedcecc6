"""One progress bar and one way to speak: rich on a terminal, plain lines otherwise, never on stdout.

stdout belongs to results (and to ``--json``), so that the command can be piped.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dq_toolchain.toolchain.console.printable import LONGEST_ERROR, printable
from dq_toolchain.toolchain.console.terminal import Terminal, line, plain

Advance = Callable[..., None]
"""advance(n=1, note="") moves the bar."""
LINE_EVERY = 60.0
"""Seconds between the lines of a task off a terminal; one that takes less says nothing."""


def clock(seconds: float | None) -> str:
    """h:mm:ss, or "unknown"."""
    if seconds is None:
        return "unknown"
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def roughly(seconds: float) -> str:
    """An estimate, no more exact than it is known: "40 s", "6 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds, -1 if seconds >= 10 else 0)):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class Reporter:
    """Says what is going on. ``quiet`` says nothing, nor does any but the first of several processes; a non-terminal
    gets plain lines, no bars: what is said, and of a long task one a minute. What it says may hold text out of anybody's
    files: none of it is markup, and nothing in it steers the terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet or os.environ.get("RANK", "0") != "0"
        self.console: Console = Terminal(stderr=True, quiet=self.quiet, markup=False)
        self.bars = not self.quiet and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """One line on stderr."""
        self.console.print(plain(text, longest=LONGEST_ERROR), soft_wrap=True)

    def warn(self, text: str) -> None:
        """What a user should know of the result: one line on stderr, marked."""
        self.console.print(line(plain("note:", "yellow"), " ", plain(text, longest=LONGEST_ERROR)), soft_wrap=True)

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """A bar set by (done, total), for callees that count themselves."""
        with self.task(title, 1) as advance:
            yield lambda done, total: advance(0, done=done, total=total)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """A bar with the time left."""
        if self.quiet:
            yield lambda n=1, note="", **_: None
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        said = time.monotonic()
        with Progress(*columns, console=self.console, disable=not self.bars, speed_estimate_period=3600) as progress:
            task = progress.add_task(printable(title), total=total, note="")

            def advance(n: int = 1, note: str = "", done: int | None = None, total: int | None = None) -> None:
                nonlocal said
                if done is not None:
                    progress.update(task, completed=done, total=total)
                progress.update(task, advance=n)
                if note:
                    progress.update(task, note=printable(note))
                if not self.bars and time.monotonic() - said >= LINE_EVERY:
                    self.say(_line(progress.tasks[task]))
                    said = time.monotonic()

            yield advance


def _line(task: Task) -> str:
    note = f", {task.fields['note']}" if task.fields["note"] else ""
    return f"{task.description}: {task.completed:g}/{task.total:g}, left {clock(task.time_remaining)}{note}"
