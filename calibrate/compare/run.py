"""The order of work of `dq-toolchain compare`: cell after cell, each calibrated, judged and written at once.

A run that was killed loses the cell at work; several processes share a grid by claiming cells.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.calibrate.compare.cells import CellResult, load_result, load_samples, save_samples
from dq_toolchain.calibrate.compare.evaluate import calls_of, evaluate
from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.calibrate.compare.held_out import HeldOut, held_out
from dq_toolchain.calibrate.compare.locks import claim, held
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.progress import GridReporter, seconds_left
from dq_toolchain.calibrate.compare.sets import SetJudge, name_of
from dq_toolchain.calibrate.pipeline import Calibrated, calibrated
from dq_toolchain.calibrate.work.checkpoint import remove
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk.files import read_tensors
from dq_toolchain.toolchain.errors import ModelError, ToolchainError
from dq_toolchain.toolchain.models.decoder import Decode, find_decoder
from dq_toolchain.toolchain.recipe.sections import Recipe

Calibrate = Callable[[Recipe, Reporter, Path], Calibrated]
NO_PICTURES = "the page shows latents, not pictures; no figure depends on it"


def run(grid: Grid, reporter: GridReporter, calibrate: Calibrate = calibrated) -> None:
    """Do every cell that is not done and that no other process is doing; failures are recorded, not raised.

    Raises:
        ToolchainError: a folder cannot be written.
    """
    if grid.no_pictures is not None:
        reporter.warn(f"{NO_PICTURES}: {grid.no_pictures}")
    tried = {cell: attempts_of(grid, cell) for cell in grid.cells}
    left = [cell for cell in grid.cells if not is_done(grid, cell)]
    judge_again(grid)
    judges = Judges(grid, reporter)
    with reporter.grid(len(grid.cells)) as show:
        while (cell := next_cell(left, grid)) is not None:
            with claim(grid.lock(cell)) as ours:
                if not ours:
                    continue  # taken a moment ago; now seen as taken
                left.remove(cell)
                done = seconds_of(grid)
                show(len(done), cell.name, seconds_left([cell, *left], done))
                if not is_done(grid, cell) and attempts_of(grid, cell) == tried[cell]:  # else another process was here
                    do_cell(grid, cell, judges, reporter, calibrate)
            clean(grid, cell)
    for cell in {grid.work(cell): cell for cell in grid.cells}.values():
        clean(grid, cell)  # what a process left that was killed in between


def clean(grid: Grid, cell: Cell) -> None:
    """Remove the checkpoints that this cell shares with others, once none of those is left to do."""
    work = grid.work(cell)
    if all(is_done(grid, other) for other in grid.cells if grid.work(other) == work):
        remove(work)
        remove(work.parent)


def grid_result(grid: Grid) -> Callable[[Cell], CellResult | None]:
    """Cell -> what is on disk for it, None if nothing of this grid's recipe is."""
    return lambda cell: load_result(grid.cell_folder(cell), grid.fingerprints[cell])


def seconds_of(grid: Grid) -> list[tuple[Cell, float]]:
    """The cells that are complete, and what each took."""
    found = map(grid_result(grid), grid.cells)
    return [(result.cell, result.wall_seconds) for result in found if result is not None and result.complete]


def next_cell(left: Sequence[Cell], grid: Grid) -> Cell | None:
    """The next cell that no process is at: first those that share least with what others compute right now.

    Two processes then do not run the same FP32 rollouts or the same fit side by side as long as there is other work.
    """
    running = [cell for cell in grid.cells if held(grid.lock(cell))]

    def shared(cell: Cell) -> int:
        rollouts = [other for other in running if (other.steps, other.seed) == (cell.steps, cell.seed)]
        fits = [other for other in rollouts if (other.setting, other.base) == (cell.setting, cell.base)]
        return 2 if fits else 1 if rollouts else 0

    return min((cell for cell in left if cell not in running), key=shared, default=None)


def judge_again(grid: Grid) -> None:
    """Bring Frechet distance and agreement of finished cells up to the feature extractor that is there now.

    The samples are kept, so that an extractor that came later costs no calibration.
    """
    judges: dict[str, SetJudge] = {}
    names: dict[tuple[int, ...], str | None] = {}
    for result in filter(None, map(grid_result(grid), grid.cells)):
        file, folder = grid.folder / "held_out" / result.held_out_file, grid.cell_folder(result.cell)
        if not result.complete or not file.is_file():
            continue
        samples = load_samples(folder)["samples"]
        shape = tuple(samples.shape[1:])
        if shape not in names:
            names[shape] = name_of(samples[:1], grid.model)
        if names[shape] == result.extractor:
            continue
        if file.name not in judges:
            judges[file.name] = SetJudge.of(read_tensors(file, "remove it")["latents"][-1], grid.model)
        result.judged_again(samples, judges[file.name]).save(folder)


class Judges:
    """Held-out rollouts and the judge of sets for the steps at work; one at a time, they are large.

    Args:
        locks: as in ``held_out``.
    """

    def __init__(self, grid: Grid, reporter: Reporter, locks: bool = True) -> None:
        self.grid, self.reporter, self.locks = grid, reporter, locks
        self._kept: tuple[int, HeldOut, SetJudge] | None = None
        self._decode: Decode | None = None
        self.no_pictures = grid.no_pictures

    def of(self, cell: Cell) -> tuple[HeldOut, SetJudge]:
        if self._kept is None or self._kept[0] != cell.steps:
            self._kept = None
            recipe, folder = self.grid.recipes[cell], self.grid.folder / "held_out"
            found = held_out(recipe, self.grid.held_out, folder, self.reporter, locks=self.locks)
            self._kept = cell.steps, found, SetJudge.of(found.final, self.grid.model)
        return self._kept[1:]

    def decoder(self, samples: Tensor) -> Decode | None:
        """The pipeline's own, None for a model without one and for one that cannot be read, which ``no_pictures`` tells of."""
        if self._decode is None and self.no_pictures is None:
            try:
                self._decode = find_decoder(self.grid.model, samples.shape[1], self.reporter.warn)
            except ModelError as error:
                self.fail(" ".join(str(error).split()))
        return None if self.no_pictures is not None else self._decode

    def fail(self, reason: str) -> None:
        """From now on latents are shown; said once."""
        self.no_pictures = reason
        self.reporter.warn(f"{NO_PICTURES}: {reason}")


def do_cell(grid: Grid, cell: Cell, judges: Judges, reporter: Reporter, calibrate: Calibrate) -> None:
    """Calibrate, judge and write one cell; a failure is recorded, also one that is a fault of this program.

    Raises:
        ToolchainError: the folder cannot be written.
        MemoryError, OSError, ImportError, torch.OutOfMemoryError: the machine is at fault, and other cells would fail too.
    """
    folder, begin = grid.cell_folder(cell), time.perf_counter()
    result = begun(grid, cell)
    try:
        made = calibrate(grid.recipes[cell], reporter, grid.work(cell))
        held_out_samples, judge = judges.of(cell)
        with reporter.task("evaluation", calls_of(held_out_samples)) as advance:
            evaluation = evaluate(made.artifact, held_out_samples, made.context, advance)
        result = result.evaluated(evaluation, held_out_samples, judge)
        decode = judges.decoder(evaluation.samples)
        failed = save_samples(folder, evaluation, held_out_samples, decode)
        if failed is not None:
            judges.fail(failed)
        result = replace(result, pictures_reason=judges.no_pictures, calibration_seconds=made.seconds)
        replace(result, wall_seconds=time.perf_counter() - begin).save(folder)
    except (MemoryError, OSError, ImportError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = " ".join((str(error) if isinstance(error, ToolchainError) else _fault(error)).split())
        record_failure(grid, replace(result, reason=reason))
        reporter.warn(f"{cell.name} failed: {reason}")


def _fault(error: Exception) -> str:
    """Of an exception that no user's mistake raises: what it says and where it came from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"a fault of dq-toolchain: {type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno}); take another "
        "method or setting, and report it"
    )


def record_failure(grid: Grid, result: CellResult) -> None:
    """Write a cell that failed, and why. Raises ToolchainError: the folder cannot be written."""
    replace(result, figures=None, free_running=None, teacher_forced=None).save(grid.cell_folder(result.cell))


def begun(grid: Grid, cell: Cell) -> CellResult:
    """What is known of a cell before it is tried once more."""
    return CellResult(cell, grid.fingerprints[cell], attempts_of(grid, cell) + 1, None, grid.provenance[cell])


def is_done(grid: Grid, cell: Cell) -> bool:
    """Whether the cell's figures are on disk."""
    result = grid_result(grid)(cell)
    return result is not None and result.complete


def attempts_of(grid: Grid, cell: Cell) -> int:
    """How often the cell was tried, by what is on disk."""
    result = grid_result(grid)(cell)
    return 0 if result is None else result.attempts
