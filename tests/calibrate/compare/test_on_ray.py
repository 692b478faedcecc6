"""A Ray cluster of two machines, one of which is killed: all cells are done, once, with the figures of one process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.calibrate.compare.driver import run_elsewhere
from dq_toolchain.calibrate.compare.on_ray import joined
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
        print(time.time(), file=sys.stderr)
        made = calibrated(recipe, reporter, work)
        if (recipe.calibrate.method, recipe.run.seed) == (self.method, self.seed):
            try:
                self.log.with_suffix(".killed").touch(exist_ok=False)
            except FileExistsError:
                return made
            os.kill(machine, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return made


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


def test_the_cells_of_a_machine_that_is_killed_are_done_by_the_other(
    cluster: Any, tmp_path: Path, tiny_model: Path
) -> None:
    begin = time.time()
    (tmp_path / "here").mkdir()
    here, there = tiny_grid(tmp_path / "here", tiny_model), tiny_grid(tmp_path, tiny_model, gpus=0)
    run(here, QUIET)
    print("here", time.time() - begin)
    with joined(QUIET) as machines:
        assert (machines.gpus, cluster.address) == (0, os.environ["RAY_ADDRESS"])
        run_elsewhere(there, GridReporter(), machines, Deadly(tmp_path / "log", "mse", 1))
    print("there", time.time() - begin)
    calls = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    killed = next(machine for method, seed, machine in calls if (method, seed) == ("mse", "1"))
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
    assert killed
