"""A grid of four cells that the fake calibrator finishes in a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.compare.results import Comparison, collect
from dq_toolchain.calibrate.compare.run import grid_result, run
from tests.calibrate.compare.fake import FakeCalibrator, tiny_grid


@pytest.fixture
def grid(tmp_path: Path, tiny_model: Path) -> Grid:
    return tiny_grid(tmp_path, tiny_model)


@pytest.fixture
def fake(tmp_path: Path) -> FakeCalibrator:
    return FakeCalibrator(tmp_path / "log")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Comparison:
    """Three methods, one of which fails, at two settings with two calibration seeds. Read only."""
    folder = tmp_path_factory.mktemp("finished")
    grid = tiny_grid(folder, tiny_model, methods="minmax,mse,accuquant+tac", bits="W8A8,W4A8")
    run(grid, GridReporter(quiet=True), FakeCalibrator(folder / "log", failing=("accuquant",)))
    return collect(grid, grid_result(grid))
