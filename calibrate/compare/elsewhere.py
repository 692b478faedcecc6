"""A piece of a comparison on a machine that is not the one that asks: what it is given, what it checks, what it answers.

Nothing here knows which engine carries it there. Results and checkpoints go through the folder, which all machines share.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dq_toolchain.calibrate.compare.floor import frechet_floor
from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.calibrate.compare.held_out import held_out
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.run import Calibrate, Judges, do_cell, is_done
from dq_toolchain.calibrate.network.precision import check_precision
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.calibrate.prepare.identity import versions
from dq_toolchain.calibrate.prepare.setup import choose_device
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk.files import discard, write_bytes
from dq_toolchain.toolchain.errors import ToolchainError
from dq_toolchain.toolchain.models.loading import load_model
from dq_toolchain.toolchain.models.lora import Lora
from dq_toolchain.toolchain.models.source import find_model
from dq_toolchain.toolchain.recipe.sections import Recipe

Kind = Literal["rollouts", "cell", "floor"]
LATE = 90.0
"""Seconds within which a file that one machine wrote is seen by the others: NFS looks again after 60 by itself."""
POLL = 0.5


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one machine does at a time.

    Attributes:
        kind: "rollouts": FP32 of the held-out seeds. "cell": calibration and evaluation. "floor": ``frechet_floor``.
        grid: of one cell, as ``portable`` made it. token: name of a file in the grid's folder.
    """

    kind: Kind
    grid: Grid
    token: str
    calibrate: Calibrate = calibrated

    @property
    def cell(self) -> Cell:
        return self.grid.cells[0]

    @property
    def recipe(self) -> Recipe:
        return self.grid.recipes[self.cell]

    @property
    def name(self) -> str:
        return self.cell.name if self.kind == "cell" else f"{self.kind} of {self.cell.sampler}{self.cell.steps}"

    @property
    def uses_gpu(self) -> bool:
        return self.recipe.run.device == "cuda"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a machine answers.

    Attributes:
        machine: its name. notes: what the user should know of the result.
        refusal: why this machine can do no job of this comparison, None if it can.
        floor: of a job of that kind.
    """

    machine: str
    notes: tuple[str, ...] = ()
    refusal: str | None = None
    floor: float | None = None


class _Notes(Reporter):
    """Keeps what it is told, for the machine that asked."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def warn(self, text: str) -> None:
        self.lines.append(text)


def do_job(job: Job) -> Outcome:
    """Do it on this machine. A cell's failure is in its file, as it is without other machines."""
    machine, notes, floor = socket.gethostname(), _Notes(), None
    try:
        _check(job)
        section = job.recipe.model
        grid = replace(job.grid, model=find_model(section.path, section.variant, section.scheduler).folder)
        if job.kind == "rollouts":
            with contextlib.suppress(ToolchainError):  # the cells that need them say it
                held_out(job.recipe, grid.held_out, grid.folder / "held_out", notes, locks=False)
        elif job.kind == "floor":
            floor = frechet_floor(grid, job.cell, notes, locks=False)
        elif not is_done(grid, job.cell):  # else a worker wrote it that was lost before it could answer
            do_cell(grid, job.cell, Judges(grid, notes, locks=False), notes, job.calibrate)
    except ToolchainError as error:
        return Outcome(machine=machine, refusal=" ".join(str(error).split()))
    return Outcome(machine=machine, notes=tuple(notes.lines), floor=floor)


def _check(job: Job) -> None:
    """Raises ToolchainError: the folder, the libraries, the model or the GPU is not what the comparison was planned with."""
    folder = job.grid.folder
    if not appears(lambda: (folder / job.token).is_file(), folder):
        raise ToolchainError(
            f"does not see {folder / job.token}, which was just written; mount the folder at the same place on every machine, or "
            "choose one that all share (--out)"
        )
    planned, here = job.grid.provenance[job.cell], versions()
    other = [
        f"{name} {here[name]} instead of {given}" for name, given in planned["versions"].items() if here[name] != given
    ]
    if other:
        raise ToolchainError(f"has {', '.join(other)}; install the same on every machine")
    check_precision(job.recipe.run.precision, choose_device(job.recipe.run.device))
    section = job.recipe.model
    lora = None if section.lora is None else Lora(section.lora, section.lora_scale)
    found = load_model(section.path, section.variant, section.scheduler, lora)
    if found.weight_hash != planned["model"]["weight_hash"]:
        raise ToolchainError(
            f"has other weights in {found.folder} than the machine that asks; give a model that all machines share (--model)"
        )


def appears(is_there: Callable[[], bool], folder: Path) -> bool:
    """Whether a file that another machine wrote into the folder is seen here, within ``LATE`` seconds."""
    until = time.monotonic() + LATE
    while True:
        with contextlib.suppress(OSError):
            os.listdir(folder)  # a network file system asks its server again
        if is_there():
            return True
        if time.monotonic() >= until or not folder.is_dir():
            return False
        time.sleep(POLL)


@contextlib.contextmanager
def token(folder: Path) -> Iterator[str]:
    """Name of a file that is in the folder until the end of the block. Raises ToolchainError: it cannot be written."""
    path = folder / f".shared-{secrets.token_hex(8)}"
    write_bytes(path, b"dq-toolchain compare: other machines look for this file\n")
    try:
        yield path.name
    finally:
        discard(path)


def portable(grid: Grid) -> Grid:
    """The grid with paths that mean the same in any current folder, and recipes without sections of targets."""
    recipes = {cell: _portable(recipe) for cell, recipe in grid.recipes.items()}
    return replace(grid, folder=grid.folder.absolute(), recipes=recipes)


def of_cell(grid: Grid, cell: Cell) -> Grid:
    """The grid of that cell alone."""
    parts = {name: {cell: getattr(grid, name)[cell]} for name in ("recipes", "fingerprints", "provenance")}
    return replace(grid, cells=(cell,), **parts)  # type: ignore[arg-type]


def _portable(recipe: Recipe) -> Recipe:
    sections = {}
    for name in Recipe.model_fields:
        section = getattr(recipe, name)
        paths = {key: value.absolute() for key, value in section if isinstance(value, Path)}
        if name == "model" and recipe.model.path is not None and not recipe.model.path.exists():
            del paths["path"]  # owner/name of a hub
        sections[name] = section.model_copy(update=paths)
    return Recipe.model_construct(recipe.model_fields_set & set(Recipe.model_fields), **sections)
