"""The Frechet distance of FP32's own samples of other seeds: found once, kept, shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.compare import floor, held_out, sets
from dq_toolchain.calibrate.compare.floor import frechet_floor
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.compare.results import collect
from dq_toolchain.calibrate.compare.run import grid_result, run
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.toolchain.verdict.features import frechet_distance
from tests.calibrate.compare.fake import FakeCalibrator


class Pixels:
    """Features are the pixels' means over quarters."""

    name = "quarters"

    def features(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)

    def labels(self, images: Tensor) -> Tensor:
        return (images.mean((1, 2, 3)) > 0).long()


QUIET = GridReporter(quiet=True)


def test_the_floor_is_the_distance_of_two_sets_of_seeds(
    grid: Grid, fake: FakeCalibrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "extractor_of", lambda _images, _model: Pixels())
    run(grid, QUIET, fake)
    found = frechet_floor(grid, grid.cells[0], QUIET)
    recipe = grid.recipes[grid.cells[0]]
    first = held_out.held_out(recipe, grid.held_out, grid.folder / "held_out", QUIET).final
    others = held_out.other_samples(recipe, grid.held_out, QUIET)
    assert found == pytest.approx(frechet_distance(Pixels().features(others), Pixels().features(first)))
    assert found is not None
    assert found > 0
    monkeypatch.setattr(floor, "other_samples", lambda *_: pytest.fail("found once, it is kept"))
    assert frechet_floor(grid, grid.cells[1], QUIET) == found
    comparison = collect(grid, grid_result(grid), lambda cell: frechet_floor(grid, cell, QUIET))
    assert comparison.floors == {comparison.settings[0]: found}
    assert comparison.to_json()["frechet_of_other_seeds"] == comparison.floors


def test_without_an_extractor_there_is_none(grid: Grid, fake: FakeCalibrator, tmp_path: Path) -> None:
    run(grid, QUIET, fake)
    assert frechet_floor(grid, grid.cells[0], QUIET) is None


def test_the_seeds_are_others() -> None:
    assert not set(held_out_seeds(5)) & set(held_out_seeds(5, first=5))
