"""The order of work where other machines do the cells: what may begin, what came back, and what is shown.

One process hands the work out, so that no machine needs a lock: FP32 rollouts of the held-out seeds are run before the cells
that are judged against them, and of cells that share a fit one follows the other.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

from dq_toolchain.calibrate.compare.elsewhere import Job, Kind, Outcome, appears, of_cell, portable, token
from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.calibrate.compare.locks import claim
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.progress import GridReporter, seconds_left
from dq_toolchain.calibrate.compare.run import (
    NO_PICTURES,
    Calibrate,
    attempts_of,
    begun,
    clean,
    is_done,
    judge_again,
    record_failure,
    seconds_of,
)
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.toolchain.disk.lock import UNKNOWN, locked
from dq_toolchain.toolchain.errors import ToolchainError


@dataclass(frozen=True)
class Lost:
    """A job whose workers died, each time it was tried."""

    reason: str


class Cluster(Protocol):
    """Machines that do jobs."""

    def start(self, job: Job) -> None:
        """Have a job done as soon as a machine is free, again if that machine is lost."""

    def finished(self) -> tuple[Job, Outcome | Lost]:
        """Wait for the next job that is done, in any order."""

    def slots(self, job: Job) -> int:
        """How many jobs of this kind run side by side."""


def run_elsewhere(
    grid: Grid, reporter: GridReporter, cluster: Cluster, calibrate: Calibrate = calibrated
) -> dict[int, float | None]:
    """Do every cell that is not done; failures are recorded, not raised.

    Returns:
        By sampler steps, ``frechet_floor`` of what is complete.
    Raises:
        ToolchainError: another process is at this comparison, a machine cannot take part (the text names it), or the
            folder cannot be written.
    """
    grid = portable(grid)
    with locked(grid.folder, "compare --on", reporter.warn), token(grid.folder) as name:
        if grid.no_pictures is not None:
            reporter.warn(f"{NO_PICTURES}: {grid.no_pictures}")
        judge_again(grid)
        work = _Work(grid, reporter, cluster, name, calibrate)
        with _claimed(grid) as left:
            work.cells(left)
        for cell in {grid.work(cell): cell for cell in grid.cells}.values():
            clean(grid, cell)
        return work.floors()


class _Work:
    """What is handed out and what came back."""

    def __init__(self, grid: Grid, reporter: GridReporter, cluster: Cluster, name: str, calibrate: Calibrate) -> None:
        self.grid, self.reporter, self.cluster, self.name, self.calibrate = grid, reporter, cluster, name, calibrate

    def cells(self, left: Sequence[Cell]) -> None:
        """Do these."""
        tried = {cell: attempts_of(self.grid, cell) for cell in left}
        waiting, running, judged = apart(left), list[Cell](), set[int]()
        for cell in {cell.steps: cell for cell in left}.values():
            self.start("rollouts", cell)
        with self.reporter.grid(len(self.grid.cells)) as show:
            last = ""
            while waiting or running:
                for cell in may_begin(waiting, running, judged):
                    waiting.remove(cell)
                    running.append(cell)
                    self.start("cell", cell)
                done, slots = seconds_of(self.grid), self.cluster.slots(self.job("cell", left[0]))
                remaining = seconds_left([*waiting, *running], done)
                note = f"{min(slots, len(running))} at work" if running else "held-out FP32 rollouts"
                show(len(done), note + last, None if remaining is None else remaining / max(1, slots))
                job, outcome = self.next()
                if job.kind == "rollouts":
                    judged.add(job.cell.steps)
                    continue
                running.remove(job.cell)
                self.recorded(job.cell, outcome, tried[job.cell])
                clean(self.grid, job.cell)
                machine = "" if isinstance(outcome, Lost) else f" on {outcome.machine}"
                last = f"; {job.cell.name} ended{machine}"

    def floors(self) -> dict[int, float | None]:
        """By steps, of what is complete."""
        wanted = {cell.steps: cell for cell in self.grid.cells if is_done(self.grid, cell)}
        for cell in wanted.values():
            self.start("floor", cell)
        found: dict[int, float | None] = {}
        while len(found) < len(wanted):
            job, outcome = self.next()
            if isinstance(outcome, Lost):
                raise ToolchainError(f"{job.name} is not known: {outcome.reason}; run the same command again")
            found[job.cell.steps] = outcome.floor
        return found

    def job(self, kind: Kind, cell: Cell) -> Job:
        return Job(kind=kind, grid=of_cell(self.grid, cell), token=self.name, calibrate=self.calibrate)

    def start(self, kind: Kind, cell: Cell) -> None:
        self.cluster.start(self.job(kind, cell))

    def next(self) -> tuple[Job, Outcome | Lost]:
        """The next job that is done. Raises ToolchainError: its machine cannot take part."""
        job, outcome = self.cluster.finished()
        if isinstance(outcome, Outcome):
            if outcome.refusal is not None:
                raise ToolchainError(f"machine {outcome.machine}: {outcome.refusal}")
            for line in outcome.notes:
                self.reporter.warn(line if line.startswith(job.name) else f"{job.name}: {line}")
        return job, outcome

    def recorded(self, cell: Cell, outcome: Outcome | Lost, tried: int) -> None:
        """See to it that this machine sees the cell's file."""
        if isinstance(outcome, Lost) and not is_done(self.grid, cell):
            record_failure(self.grid, replace(begun(self.grid, cell), reason=outcome.reason))
            self.reporter.warn(f"{cell.name} failed: {outcome.reason}")
            return
        folder, machine = self.grid.cell_folder(cell), "" if isinstance(outcome, Lost) else outcome.machine
        if not appears(lambda: attempts_of(self.grid, cell) > tried, folder):
            raise ToolchainError(
                f"machine {machine} did {cell.name}, but {folder} does not show its result here; see whether the folder "
                "is the same on both (--out), and run the same command again"
            )


def may_begin(waiting: Sequence[Cell], running: Sequence[Cell], judged: set[int]) -> list[Cell]:
    """Those whose held-out rollouts are there; of cells that share a fit one at a time, and none while another runs."""
    taken, found = {_fit(cell) for cell in running}, []
    for cell in waiting:
        if cell.steps in judged and _fit(cell) not in taken:
            taken.add(_fit(cell))
            found.append(cell)
    return found


def apart(cells: Sequence[Cell]) -> list[Cell]:
    """The cells in an order in which neighbours share little: by turns from those that share FP32 rollouts."""
    seen: Counter[tuple[int, int]] = Counter()
    turns = {}
    for cell in cells:
        turns[cell] = seen[cell.steps, cell.seed]
        seen[cell.steps, cell.seed] += 1
    return sorted(cells, key=turns.__getitem__)


def _fit(cell: Cell) -> tuple[str, str, int]:
    return cell.setting, cell.base, cell.seed


@contextlib.contextmanager
def _claimed(grid: Grid) -> Iterator[list[Cell]]:
    """Cells that are not done and that no other process of this machine is at; none takes them meanwhile."""
    with ExitStack() as stack:
        yield [cell for cell in grid.cells if not is_done(grid, cell) and _claim(stack, grid, cell)]


def _claim(stack: ExitStack, grid: Grid, cell: Cell) -> bool:
    try:
        return stack.enter_context(claim(grid.lock(cell))) and not is_done(grid, cell)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
        return True  # a file system without locks: ``locked`` said it
