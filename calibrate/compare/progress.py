"""One display for a whole grid: a bar of cells with the time left over all of them, and the stage at work below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.toolchain.console.progress import Advance, Reporter, clock


def seconds_left(open_cells: Sequence[Cell], done: Sequence[tuple[Cell, float]]) -> float | None:
    """Seconds that the open cells will take, judged by cells done; None if none is.

    A cell takes the mean time per step of its method, or of all methods if its own has none done.
    """
    if not done:
        return None

    def per_step(method: str | None) -> float | None:
        times = [seconds / cell.steps for cell, seconds in done if method in (None, cell.method)]
        return sum(times) / len(times) if times else None

    overall = per_step(None) or 0.0
    return sum((per_step(cell.method) or overall) * cell.steps for cell in open_cells)


class _Left(ProgressColumn):
    """The grid's own estimate; rich's for a single stage."""

    def __init__(self) -> None:
        super().__init__()
        self.usual = TimeRemainingColumn()

    def render(self, task: Task) -> Text:
        if "left" not in task.fields:
            return self.usual.render(task)
        left: float | None = task.fields["left"]
        return Text("-:--:--" if left is None else clock(left), style="progress.remaining")


class GridReporter(Reporter):
    """A reporter whose tasks appear below the bar of the grid while there is one."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._progress: Progress | None = None

    @contextmanager
    def grid(self, total: int) -> Iterator[Callable[[int, str, float | None], None]]:
        """The bar of ``total`` cells; set by (cells done, what runs now, seconds left over all). A line each off a terminal."""
        if not self.bars:
            yield lambda done, note, left: self.console.print(
                f"{done}/{total} cells done, left {clock(left)}, now {note}", soft_wrap=True
            )
            return
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn("elapsed"),
                   TimeElapsedColumn(), TextColumn("left"), _Left(), TextColumn("{task.fields[note]}", markup=False))  # fmt: skip
        with Progress(*columns, console=self.console) as progress:
            bar = progress.add_task("cells", total=total, note="", left=None)
            self._progress = progress
            try:
                yield lambda done, note, left: progress.update(bar, completed=done, note=note, left=left)
            finally:
                self._progress = None

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        progress = self._progress
        if progress is None:
            with super().task(title, total) as advance:
                yield advance
            return
        bar = progress.add_task(title, total=total, note="")

        def move(n: int = 1, note: str = "", done: int | None = None, total: int | None = None) -> None:
            if done is not None:
                progress.update(bar, completed=done, total=total)
            progress.update(bar, advance=n)
            if note:
                progress.update(bar, note=note)

        try:
            yield move
        finally:
            progress.remove_task(bar)
