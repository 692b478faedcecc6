"""What goes on, as callbacks: quiet by default, no terminal, no signal handler, no output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dq_toolchain.api.results import OnNote, OnProgress
from dq_toolchain.toolchain.console.progress import Advance, Reporter


class Callbacks(Reporter):
    """A reporter that prints nothing. An exception that a callback raises ends the work; what was done is kept on disk.

    Attributes:
        notes: what a user should know of the result, in order; of those that repeat one.
    """

    def __init__(self, on_progress: OnProgress | None = None, on_note: OnNote | None = None) -> None:
        super().__init__(quiet=True)
        self.on_progress, self.on_note = on_progress, on_note
        self.notes: list[str] = []

    def say(self, text: str) -> None:
        if self.on_note is not None:
            self.on_note(text)

    def warn(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.say(text)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        finished, of = 0, total

        def advance(n: int = 1, note: str = "", done: int | None = None, total: int | None = None) -> None:
            nonlocal finished, of
            finished = (finished if done is None else done) + n
            of = of if total is None else total
            if self.on_progress is not None:
                self.on_progress(title, finished, of)

        yield advance
