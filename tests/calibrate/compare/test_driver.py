"""Handing cells out to other machines: what may run side by side, what a lost or unfit machine means, and the same results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from dq_toolchain.calibrate.compare import elsewhere
from dq_toolchain.calibrate.compare.cells import JSON
from dq_toolchain.calibrate.compare.driver import Lost, apart, may_begin, run_elsewhere
from dq_toolchain.calibrate.compare.elsewhere import Job, Outcome, do_job, of_cell, portable
from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.calibrate.compare.locks import held
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.compare.results import collect
from dq_toolchain.calibrate.compare.run import grid_result, run
from dq_toolchain.toolchain.disk.lock import locked
from dq_toolchain.toolchain.errors import RecipeError, ToolchainError
from tests.calibrate.compare.fake import RECIPE, FakeCalibrator, tiny_grid

QUIET = GridReporter(quiet=True)


@dataclass
class Queue:
    """A cluster of this process: jobs are done when they are asked for, in the order they came.

    Attributes:
        lost: names of jobs whose workers die. twice: names of jobs whose first worker dies when all is done but its answer.
        seen: names of jobs with how many more were handed out when they were done.
    """

    lost: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    waiting: deque[Job] = field(default_factory=deque)
    seen: list[tuple[str, int]] = field(default_factory=list)

    def start(self, job: Job) -> None:
        self.waiting.append(job)

    def finished(self) -> tuple[Job, Outcome | Lost]:
        job = self.waiting.popleft()
        self.seen.append((job.name, len(self.waiting)))
        if job.name in self.lost:
            return job, Lost("its worker was lost 4 times, the last time: out of memory")
        if job.name in self.twice:
            do_job(job)
        return job, do_job(job)

    def slots(self, _job: Job) -> int:
        return 2


@contextmanager
def current(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def test_cells_done_elsewhere_are_those_done_here(
    grid: Grid, fake: FakeCalibrator, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    here = tiny_grid(tmp_path / "here", tiny_model)
    run(here, QUIET, FakeCalibrator(tmp_path / "here" / "log"))
    floors = run_elsewhere(grid, GridReporter(), Queue(), fake)
    assert floors == {3: None}
    assert sorted(fake.calls) == ["minmax w8 3 0", "minmax w8 3 1", "mse w8 3 0", "mse w8 3 1"]
    for cell in grid.cells:
        ours, theirs = grid_result(grid)(cell), grid_result(here)(cell)
        assert ours is not None
        assert theirs is not None
        assert replace(ours, wall_seconds=0) == replace(theirs, wall_seconds=0)
    assert {path.name for path in grid.folder.iterdir()} == {"cells", "held_out"}
    assert not list(grid.folder.rglob("*.lock"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "0/4 cells done, left unknown, now held-out FP32 rollouts"
    assert [line.partition(",")[0] for line in lines[1:]] == [f"{done}/4 cells done" for done in range(4)]
    assert "now 2 at work; ddim3-w8a8-" in lines[2]
    again = Queue()
    run_elsewhere(grid, QUIET, again, fake)
    assert [name for name, _ in again.seen] == ["floor of ddim3"]
    assert len(fake.calls) == 4


def test_held_out_rollouts_come_first_and_cells_of_one_fit_one_by_one(
    tmp_path: Path, tiny_model: Path, fake: FakeCalibrator
) -> None:
    grid = tiny_grid(tmp_path, tiny_model, methods="mse,accuquant,accuquant+tac", seeds=1, steps="3,4")
    queue = Queue()
    run_elsewhere(grid, QUIET, queue, replace(fake, failing=("accuquant",)))
    names = [name for name, _ in queue.seen]
    assert names[:2] == ["rollouts of ddim3", "rollouts of ddim4"]
    assert len(names) == 2 + 6 + 2
    for steps in (3, 4):
        place = dict(queue.seen)
        assert names.index(f"ddim{steps}-w8a8-accuquant-s0") < names.index(f"ddim{steps}-w8a8-accuquant+tac-s0")
        assert place[f"ddim{steps}-w8a8-mse-s0"] > 0


def test_what_may_begin() -> None:
    cells = [Cell("ddim", steps, 4, 8, method, 0) for steps in (3, 4) for method in ("a", "a+b", "a+c", "d")]
    assert may_begin(cells, [], set()) == []
    assert may_begin(cells, [], {3}) == [cells[0], cells[3]]
    assert may_begin(cells[1:], [cells[0]], {3, 4}) == [cells[3], cells[4], cells[7]]
    assert apart(cells[:6]) == [cells[0], cells[4], cells[1], cells[5], cells[2], cells[3]]


def test_a_cell_whose_workers_die_is_recorded_and_one_done_twice_counts_once(grid: Grid, fake: FakeCalibrator) -> None:
    names = [cell.name for cell in grid.cells]
    run_elsewhere(grid, QUIET, Queue(lost=(names[0],), twice=(names[1],)), fake)
    found = collect(grid, grid_result(grid))
    assert found.with_state("failed") == {names[0]: "its worker was lost 4 times, the last time: out of memory"}
    assert sorted(found.with_state("complete")) == sorted(names[1:])
    assert [(row.failed, row.seeds) for row in found.rows] == [(1, (1,)), (0, (0, 1))]
    assert len(fake.calls) == 3
    run_elsewhere(grid, QUIET, Queue(), fake)
    assert not collect(grid, grid_result(grid)).with_state("failed")


def test_a_lost_worker_of_the_held_out_rollouts_stops_nothing(grid: Grid, fake: FakeCalibrator) -> None:
    run_elsewhere(grid, QUIET, Queue(lost=("rollouts of ddim3",)), fake)
    assert len(collect(grid, grid_result(grid)).with_state("complete")) == 4


def test_failures_and_notes_come_back(grid: Grid, fake: FakeCalibrator, capsys: pytest.CaptureFixture[str]) -> None:
    run_elsewhere(grid, GridReporter(), Queue(), replace(fake, failing=("minmax",)))
    err = " ".join(capsys.readouterr().err.split())
    assert err.count("note: ddim3-w8a8-minmax-s") == 2
    assert err.count("failed: method minmax does not like this sampler; choose another") == 2
    assert len(collect(grid, grid_result(grid)).with_state("failed")) == 2


REFUSALS = {
    "folder": r"^does not see .*out/compare/\.shared-x, which was just written; mount the folder at the same place",
    "versions": r"^has torch \S+ instead of 1\.0, numpy \S+ instead of 2\.0; install the same on every machine",
    "weights": r"^has other weights in \S+ than the machine that asks; give a model that all machines share",
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_machine_that_is_not_as_the_others_says_what_it_lacks(
    what: str, grid: Grid, fake: FakeCalibrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "LATE", 0.0)
    cell = grid.cells[0]
    own = dict(grid.provenance[cell])
    if what == "versions":
        own["versions"] = {**own["versions"], "torch": "1.0", "numpy": "2.0"}
    if what == "weights":
        own["model"] = {**own["model"], "weight_hash": "0"}
    changed = replace(grid, provenance={**grid.provenance, cell: own})
    grid.folder.mkdir(parents=True)
    if what != "folder":
        (grid.folder / ".shared-x").write_text("")
    outcome = do_job(Job(kind="cell", grid=of_cell(portable(changed), cell), token=".shared-x", calibrate=fake))
    assert outcome.refusal is not None
    assert re.search(REFUSALS[what], outcome.refusal)
    assert fake.calls == []


def test_such_a_machine_ends_the_comparison_by_name(grid: Grid, fake: FakeCalibrator) -> None:
    class Unfit(Queue):
        def finished(self) -> tuple[Job, Outcome | Lost]:
            return self.waiting.popleft(), Outcome(machine="node7", refusal="does not see the folder")

    with pytest.raises(ToolchainError, match=r"^machine node7: does not see the folder$"):
        run_elsewhere(grid, QUIET, Unfit(), fake)
    assert not list(grid.folder.rglob("*.lock"))
    assert not list(grid.folder.glob(".shared*"))


def test_a_result_that_does_not_appear_is_said(
    grid: Grid, fake: FakeCalibrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(Queue):
        def finished(self) -> tuple[Job, Outcome | Lost]:
            return self.waiting.popleft(), Outcome(machine="node7")

    monkeypatch.setattr(elsewhere, "LATE", 0.0)
    with pytest.raises(
        ToolchainError, match=r"machine node7 did ddim3-w8a8-minmax-s0, but .* does not show its result"
    ):
        run_elsewhere(grid, QUIET, Elsewhere(), fake)


def test_relative_paths_hold_in_any_current_folder(
    grid: Grid, fake: FakeCalibrator, tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "model").symlink_to(tiny_model)
    with current(tmp_path):
        relative = tiny_grid(Path("."), Path("model"), seeds=1)
        assert not relative.folder.is_absolute()
        moved = portable(relative)
    assert moved.folder == grid.folder
    assert {str(recipe.model.path) for recipe in moved.recipes.values()} == {str(tmp_path / "model")}
    assert [recipe.model_fields_set for recipe in moved.recipes.values()] == [
        recipe.model_fields_set for recipe in relative.recipes.values()
    ]
    assert dict(moved.fingerprints) == {cell: grid.fingerprints[cell] for cell in moved.cells}


def test_a_second_driver_is_refused_and_cells_at_work_here_are_left(grid: Grid, fake: FakeCalibrator) -> None:
    with locked(grid.folder, "compare --on"), pytest.raises(ToolchainError, match=r"is in use: process \d+ on "):
        run_elsewhere(grid, QUIET, Queue(), fake)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        lock = grid.lock(grid.cells[1])
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text(json.dumps({"pid": other.pid, "started": psutil.Process(other.pid).create_time()}))
        run_elsewhere(grid, QUIET, Queue(), fake)
        other.kill()
    assert len(fake.calls) == 3
    assert not (grid.cell_folder(grid.cells[1]) / JSON).exists()


def test_processes_of_this_machine_leave_cells_that_were_handed_out(grid: Grid, fake: FakeCalibrator) -> None:
    class Looking(Queue):
        def finished(self) -> tuple[Job, Outcome | Lost]:
            if self.waiting[0].kind == "cell":
                assert all(held(grid.lock(cell)) for cell in grid.cells)
            return super().finished()

    run_elsewhere(grid, QUIET, Looking(), fake)
    assert len(fake.calls) == 4


@pytest.mark.parametrize(
    ("asked", "gpus", "used"), [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cpu", 2, "cpu"), ("cuda", 1, "cuda")]
)
def test_cells_use_the_gpus_of_the_cluster_whatever_this_machine_has(
    asked: str, gpus: int, used: str, tmp_path: Path, tiny_model: Path, grid: Grid
) -> None:
    precision = "tf32" if used == "cuda" else "exact"
    planned = tiny_grid(tmp_path, tiny_model, gpus=gpus, recipe=_recipe(tmp_path, asked), precision=precision)
    assert {recipe.run.precision for recipe in planned.recipes.values()} == {precision}
    assert {recipe.run.device for recipe in planned.recipes.values()} == {used}
    assert (dict(planned.fingerprints) == dict(grid.fingerprints)) == (used == "cpu")
    job = Job(kind="cell", grid=of_cell(planned, planned.cells[0]), token="")
    assert job.uses_gpu == (used == "cuda")


def test_a_gpu_that_the_cluster_has_not_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(RecipeError, match="got cuda, but no machine of the cluster offers a GPU"):
        tiny_grid(tmp_path, tiny_model, gpus=0, recipe=_recipe(tmp_path, "cuda"))


def _recipe(folder: Path, device: str) -> Path:
    path = folder / "other.toml"
    path.write_text(RECIPE.replace('"cpu"', f'"{device}"'))
    return path
