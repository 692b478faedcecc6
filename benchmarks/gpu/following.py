"""A reporter that keeps how far a long job is: for jobs that may be killed at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.gpu.record import Record
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.toolchain.console.progress import Advance, clock

EVERY = 1.0
"""Seconds between two rows of one task; each replaces the one before."""


class Following(GridReporter):
    """Tasks become rows: what is done of it, seconds, seconds left by its own pace; lines that are said become rows, too."""

    def __init__(self, record: Record, on_left: Callable[[str, float], None] = lambda _title, _left: None) -> None:
        """``on_left``: told the seconds that a task takes from now on, by its pace."""
        super().__init__(quiet=False)
        self.record, self.bars, self.on_left = record, False, on_left

    def say(self, text: str) -> None:
        super().say(text)
        self.record.row("Said", line=text)

    def warn(self, text: str) -> None:
        super().warn(text)
        self.record.row("Said", line=f"note: {text[:300]}")

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        begin, written, count, last = time.monotonic(), 0.0, 0, ""
        self.record.row("Progress", task=title, done=0, of=total, seconds=0.0, left="", note="")

        def write() -> None:
            nonlocal written
            now = time.monotonic()
            written, spent = now, now - begin
            left = spent / count * (total - count) if count else None
            self.record.last_row(
                "Progress", task=title, done=count, of=total, seconds=spent, left=clock(left), note=last
            )
            if left is not None:
                self.on_left(title, left)

        def advance(n: int = 1, note: str = "", done: int | None = None, total: int | None = None) -> None:
            nonlocal count, last
            count, last = (count if done is None else done) + n, note or last
            if time.monotonic() - written >= EVERY:
                write()

        try:
            yield advance
        finally:
            write()
