"""A Ray cluster of two machines, one of which is killed: all cells are done, once, with the figures of one process.

What of Ray's answers means what is shown with a stand-in for ray, which need not be installed.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dq_toolchain.calibrate.compare.driver import Lost, run_elsewhere
from dq_toolchain.calibrate.compare.elsewhere import Job, Outcome, of_cell
from dq_toolchain.calibrate.compare.on_ray import joined
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.compare.results import collect
from dq_toolchain.calibrate.compare.run import grid_result, run
from dq_toolchain.calibrate.pipeline import Calibrated, calibrated
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import ToolchainError
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests.calibrate.compare.fake import tiny_grid

ROOT = Path(__file__).parents[3]
QUIET = GridReporter(quiet=True)


@dataclass(frozen=True)
class Deadly:
    """The calibrator itself, which in one cell kills the machine that it is on, the first time.

    Attributes:
        log: a line per call: method, seed, and the machine's process.
    """

    log: Path
    method: str
    seed: int

    def __call__(self, recipe: Recipe, reporter: Reporter, work: Path) -> Calibrated:
        machine = os.getppid()
        with self.log.open("a") as log:
            log.write(f"{recipe.calibrate.method} {recipe.run.seed} {machine}\n")
        made = calibrated(recipe, reporter, work)
        if (recipe.calibrate.method, recipe.run.seed) == (self.method, self.seed):
            try:
                self.log.with_suffix(".killed").touch(exist_ok=False)
            except FileExistsError:
                return made
            os.kill(machine, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return made


class Answer:
    """A stand-in's task: what it gives, or the exception that it raises."""

    def __init__(self, given: Any) -> None:
        self.given = given


class Ray(ModuleType):
    """Stands in for ray: jobs end at once with the next of ``answers``.

    Attributes:
        machines: name -> resources of those alive. asked: what was asked of it, in order.
    """

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: Exception) -> None:
                self.cause = cause

    def __init__(self, *answers: Any) -> None:
        super().__init__("ray")
        self.answers, self.asked = list(answers), list[Any]()
        self.machines = {"a": {"CPU": 2.0}, "b": {"CPU": 2.0, "GPU": 1.0}, "head": {}}

    def is_initialized(self) -> bool:
        return False

    def init(self, **settings: Any) -> None:
        self.asked.append(settings)

    def remote(self, _function: Any) -> Ray:
        return self

    def options(self, **options: Any) -> SimpleNamespace:
        self.asked.append(options)
        return SimpleNamespace(remote=lambda _job: Answer(self.answers.pop(0)))

    def wait(self, tasks: list[Answer], timeout: float) -> tuple[list[Answer], list[Answer]]:
        assert timeout > 0
        if isinstance(tasks[0].given, KeyboardInterrupt):
            raise tasks[0].given
        return tasks[:1], tasks[1:]

    def get(self, task: Answer) -> Any:
        if isinstance(task.given, Exception):
            raise task.given
        return task.given

    def cancel(self, task: Answer, force: bool) -> None:
        self.asked.append(("cancel", force))

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": name, "NodeManagerHostname": name, "Alive": True, "Resources": own}
            for name, own in self.machines.items()
        ]

    def cluster_resources(self) -> dict[str, float]:
        return {name: sum(own.get(name, 0.0) for own in self.machines.values()) for name in ("CPU", "GPU")}

    def shutdown(self) -> None:
        self.asked.append("shutdown")


def stand_in(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> Ray:
    ray = Ray(*answers)
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


def job_of(grid: Grid, device: str = "cpu") -> Job:
    cell = grid.cells[0]
    recipe = grid.recipes[cell]
    recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"device": device})})
    return Job(kind="cell", grid=of_cell(replace(grid, recipes={**grid.recipes, cell: recipe}), cell), token="")


def test_a_job_has_a_gpu_if_it_uses_one_and_begins_again_when_its_worker_is_lost(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = stand_in(monkeypatch, Outcome(machine="a"), Outcome(machine="b"))
    with joined(QUIET) as machines:
        assert machines.gpus == 1
        assert (machines.slots(job_of(grid)), machines.slots(job_of(grid, "cuda"))) == (4, 1)
        machines.start(job_of(grid))
        machines.start(job_of(grid, "cuda"))
        print("not among results")
        assert [machines.finished()[1] for _ in range(2)] == [Outcome(machine="a"), Outcome(machine="b")]
    init, *tasks, last = ray.asked
    assert (init["include_dashboard"], os.environ["RAY_USAGE_STATS_ENABLED"], last) == (False, "0", "shutdown")
    assert [(task["num_gpus"], task["num_cpus"], task["max_retries"]) for task in tasks] == [(0, 1, 3), (1, 1, 3)]
    assert {task["name"] for task in tasks} == {"ddim3-w8a8-minmax-s0"}


def test_nothing_of_ray_comes_among_the_results(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch)
    with joined(QUIET):
        print("(raylet) last lines of a log")
    assert capsys.readouterr() == ("", "")


def test_a_worker_that_is_lost_each_time_is_no_error(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Ray.exceptions.RayError("the worker died\nAdvice"))
    with joined(QUIET) as machines:
        machines.start(job_of(grid))
        assert machines.finished()[1] == Lost("its worker was lost 4 times, the last time: the worker died")


def test_what_a_machine_lacks_is_said_and_a_fault_of_ours_is_not_hidden(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Ray.exceptions.RayTaskError(ModuleNotFoundError("No module named 'dq_toolchain'"))
    stand_in(monkeypatch, missing, Ray.exceptions.RayTaskError(ZeroDivisionError()))
    with joined(QUIET) as machines:
        machines.start(job_of(grid))
        machines.start(job_of(grid))
        with pytest.raises(ToolchainError, match=r"cannot import .*'dq_toolchain'.* pip install 'dq-toolchain\[ray\]'"):
            machines.finished()
        with pytest.raises(Ray.exceptions.RayTaskError):
            machines.finished()


def test_an_interrupt_ends_what_was_handed_out(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = stand_in(monkeypatch, KeyboardInterrupt(), Outcome(machine="a"))

    def hand_out() -> None:
        with joined(QUIET) as machines:
            machines.start(job_of(grid))
            machines.start(job_of(grid))
            machines.finished()

    with pytest.raises(KeyboardInterrupt):
        hand_out()
    assert ray.asked[-3:] == [("cancel", True), ("cancel", True), "shutdown"]


def test_machines_that_leave_are_named(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = stand_in(monkeypatch, *[Outcome(machine="a")] * 3)
    with joined(GridReporter()) as machines:
        for _ in range(3):
            machines.start(job_of(grid))
        machines.finished()
        del ray.machines["b"]
        machines.finished()
        ray.machines.clear()
        machines.finished()
    assert capsys.readouterr().err.splitlines() == [
        "note: machine b left the cluster; what it was at begins again",
        "note: machine a left the cluster; what it was at begins again",
        "no machine of the cluster can go on with this; waiting for one that joins",
    ]


REFUSALS = {
    "no ray": r"ray does not import \(.*\); install it on every machine: pip install 'dq-toolchain\[ray\]'$",
    "nobody": r"127\.0\.0\.1:\d+ does not answer \(.*refused.*\); start it with `ray start --head`",
    "no token": r"127\.0\.0\.1:\d+ wants the token that it was started with; set RAY_AUTH_MODE=token, and have ",
    "another version": r"127\.0\.0\.1:\d+ does not answer \(Ray 1 instead of 2\); ",
}


@pytest.mark.parametrize("what", REFUSALS)
def test_without_ray_or_its_cluster_it_is_one_line(
    what: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_settings: Any) -> None:
        if what == "no token":
            raise ConnectionError("Failed to connect") from RuntimeError("RPC error: InvalidAuthToken")
        raise RuntimeError("Ray 1\ninstead of 2")

    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port.getsockname()[1]}")
        monkeypatch.setattr(stand_in(monkeypatch), "init", fails)
        if what == "no ray":
            monkeypatch.setitem(sys.modules, "ray", None)
        if what != "nobody":
            port.listen()
        code = run_command(["compare", "--model", str(tiny_model), "--out", str(tmp_path / "out"), "--on", "ray"])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(REFUSALS[what], err.strip()), err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two machines with a processor each, and the one that asks."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'dq-toolchain[ray]'")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    from ray.cluster_utils import Cluster

    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    own.add_node(num_cpus=1)
    own.add_node(num_cpus=1)
    patch.setenv("RAY_ADDRESS", own.address)
    yield own
    own.shutdown()
    patch.undo()


@pytest.mark.slow
def test_the_cells_of_a_machine_that_is_killed_are_done_by_the_other(
    cluster: Any, tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "here").mkdir()
    here, there = tiny_grid(tmp_path / "here", tiny_model), tiny_grid(tmp_path, tiny_model, gpus=0)
    run(here, QUIET)
    with joined(QUIET) as machines:
        assert (machines.gpus, cluster.address) == (0, os.environ["RAY_ADDRESS"])
        run_elsewhere(there, QUIET, machines, Deadly(tmp_path / "log", "mse", 1))
    calls = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert (tmp_path / "log.killed").exists()
    assert len({machine for *_, machine in calls}) == 2
    assert Counter((method, int(seed)) for method, seed, _ in calls)["mse", 1] == 2
    found = collect(there, grid_result(there))
    assert len(found.with_state("complete")) == len(there.cells)
    assert [(row.seeds, row.failed, row.pending) for row in found.rows] == [((0, 1), 0, 0)] * 2
    for cell in there.cells:
        ours, theirs = grid_result(there)(cell), grid_result(here)(cell)
        assert ours is not None
        assert theirs is not None
        assert ours.attempts == 1
        assert ours.figures == theirs.figures
        assert (ours.free_running, ours.teacher_forced) == (theirs.free_running, theirs.teacher_forced)
