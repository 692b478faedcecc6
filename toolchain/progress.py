"""One progress bar and one way to speak: rich on a terminal, silent otherwise, never on stdout.

stdout belongs to results (and to ``--json``), so that the command can be piped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[..., None]
"""advance(n=1, note="") moves the bar."""


class Reporter:
    """Says what is going on. ``quiet`` says nothing, nor does any but the first of several processes; a non-terminal
    gets plain lines, no bars."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet or os.environ.get("RANK", "0") != "0"
        self.console = Console(stderr=True, quiet=self.quiet, highlight=False)
        self.bars = not self.quiet and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """One line on stderr, only on a terminal."""
        if self.bars:
            self.console.print(text)

    def warn(self, text: str) -> None:
        """One line on stderr, terminal or not."""
        self.console.print(f"[yellow]note:[/yellow] {text}")

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """A bar set by (done, total), for callees that count themselves."""
        with self.task(title, 1) as advance:
            yield lambda done, total: advance(0, done=done, total=total)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """A bar with the time left."""
        if not self.bars:
            yield lambda n=1, note="", **_: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("elapsed"),
                   TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=total, note="")

            def advance(n: int = 1, note: str = "", done: int | None = None, total: int | None = None) -> None:
                if done is not None:
                    progress.update(task, completed=done, total=total)
                progress.update(task, advance=n)
                if note:
                    progress.update(task, note=note)

            yield advance
