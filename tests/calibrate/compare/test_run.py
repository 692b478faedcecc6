"""The order of work: done once, continued after a kill, shared by processes, not stopped by a cell that fails."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.compare import run as run_module
from dq_toolchain.calibrate.compare import sets
from dq_toolchain.calibrate.compare.cells import JSON, SAMPLES, load_result
from dq_toolchain.calibrate.compare.page import render
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.compare.results import collect
from dq_toolchain.calibrate.compare.run import Calibrate, grid_result, next_cell, run
from dq_toolchain.calibrate.pipeline import Calibrated
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import ModelError, ToolchainError
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.verdict.features import FeatureExtractor, frechet_distance
from tests.calibrate.compare.fake import FakeCalibrator, tiny_grid
from tests.processes import Running, start

QUIET = GridReporter(quiet=True)


class Pixels:
    """A feature extractor: means of the four quarters, classes by the brightest."""

    name = "quarters"

    def features(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)

    def labels(self, images: Tensor) -> Tensor:
        return self.features(images).argmax(1)


def none_at_all(*_: object) -> FeatureExtractor:
    raise ToolchainError("no classifier\nhere; add one")


def program(grid: Grid, folder: Path, cells: int) -> Running:
    return start("from tests.calibrate.compare.fake import main; main()", folder, grid.model, cells)


def test_finished_cells_are_not_done_again(grid: Grid, fake: FakeCalibrator) -> None:
    run(grid, QUIET, fake)
    assert fake.calls == ["minmax w8 3 0", "mse w8 3 0", "minmax w8 3 1", "mse w8 3 1"]
    kept = (grid.cell_folder(grid.cells[0]) / JSON).read_bytes()
    run(grid, QUIET, fake)
    assert len(fake.calls) == 4
    assert (grid.cell_folder(grid.cells[0]) / JSON).read_bytes() == kept
    assert set(collect(grid, grid_result(grid)).states.values()) == {("complete", None)}
    assert not list(grid.folder.rglob("*.lock")) + list(grid.folder.rglob("*.tmp"))


def test_more_cells_add_to_those_there_and_changed_ones_are_done_again(
    grid: Grid, fake: FakeCalibrator, tmp_path: Path
) -> None:
    run(grid, QUIET, fake)
    run(tiny_grid(tmp_path, grid.model, seeds=3), QUIET, fake)
    assert fake.calls[4:] == ["minmax w8 3 2", "mse w8 3 2"]
    changed = tiny_grid(tmp_path, grid.model, held_out=6)
    assert collect(changed, grid_result(changed)).with_state("complete") == {}
    run(changed, QUIET, fake)
    assert len(fake.calls) == 6 + 4
    result = grid_result(changed)(changed.cells[0])
    assert result is not None
    assert result.held_out_seeds == 6


@pytest.mark.parametrize("name", [JSON, SAMPLES])
def test_a_cell_without_one_of_its_files_is_done_again(grid: Grid, fake: FakeCalibrator, name: str) -> None:
    run(grid, QUIET, fake)
    (grid.cell_folder(grid.cells[1]) / name).unlink()
    run(grid, QUIET, fake)
    assert fake.calls[4:] == ["mse w8 3 0"]


def test_a_damaged_cell_counts_as_absent(grid: Grid, fake: FakeCalibrator) -> None:
    run(grid, QUIET, fake)
    folder, fingerprint = grid.cell_folder(grid.cells[0]), grid.fingerprints[grid.cells[0]]
    data = json.loads((folder / JSON).read_text())
    damages: tuple[dict[str, Any], ...] = (
        {"schema": "other"},
        {"schema_version": 9},
        {"cell": 3},
        {"free_running": {"median": 1}},
        {"cell": {}},
    )
    for damage in damages:
        (folder / JSON).write_text(json.dumps(data | damage))
        assert load_result(folder, fingerprint) is None
    (folder / JSON).write_text(json.dumps(data))
    assert load_result(folder, fingerprint) is not None
    assert load_result(folder, "another recipe") is None


def test_a_killed_grid_loses_the_running_cell_only(grid: Grid, fake: FakeCalibrator, tmp_path: Path) -> None:
    process = program(grid, tmp_path, 2)
    assert process.end(60).returncode == -signal.SIGKILL
    assert len(fake.calls) == 3
    assert grid.lock(grid.cells[2]).exists()
    states = collect(grid, grid_result(grid)).states.values()
    assert [state for state, _ in states] == ["complete", "complete", "pending", "pending"]
    run(grid, QUIET, fake)
    assert fake.calls[3:] == ["minmax w8 3 1", "mse w8 3 1"]
    assert not collect(grid, grid_result(grid)).with_state("pending")


def test_two_processes_share_the_cells(grid: Grid, fake: FakeCalibrator, tmp_path: Path) -> None:
    process = program(grid, tmp_path, 100)
    while process.is_alive and not fake.calls:
        time.sleep(0.02)
    run(grid, QUIET, fake)
    assert process.end(60).returncode == 0
    run(grid, QUIET, fake)
    assert sorted(fake.calls) == ["minmax w8 3 0", "minmax w8 3 1", "mse w8 3 0", "mse w8 3 1"]
    assert len(collect(grid, grid_result(grid)).with_state("complete")) == 4


def test_cells_of_another_process_are_left_to_it_and_reported(grid: Grid, fake: FakeCalibrator) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        lock = grid.lock(grid.cells[1])
        lock.parent.mkdir(parents=True)
        lock.write_text(json.dumps({"pid": other.pid, "started": psutil.Process(other.pid).create_time()}))
        assert [next_cell(grid.cells[:n], grid) for n in (2, 4)] == [grid.cells[0], grid.cells[2]]
        run(grid, QUIET, fake)
        found = collect(grid, grid_result(grid))
        other.kill()
    assert len(fake.calls) == 3
    assert found.with_state("running") == {grid.cells[1].name: None}
    assert [(row.cell.method, row.pending, row.running, row.seeds) for row in found.rows] == [
        ("minmax", 0, 0, (0, 1)), ("mse", 1, 1, (1,)),
    ]  # fmt: skip
    run(grid, QUIET, fake)  # the other process is gone
    assert fake.calls[3:] == ["mse w8 3 0"]


def test_failures_are_recorded_and_tried_again_next_time(
    grid: Grid, fake: FakeCalibrator, capsys: pytest.CaptureFixture[str]
) -> None:
    run(grid, GridReporter(), replace(fake, failing=("minmax",)))
    assert len(fake.calls) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert " ".join(err.split()).count("failed: method minmax does not like this sampler; choose another") == 2
    found = collect(grid, grid_result(grid))
    reason = "method minmax does not like this sampler; choose another"
    assert found.with_state("failed") == {cell.name: reason for cell in grid.cells if cell.method == "minmax"}
    assert [(row.failed, len(row.seeds)) for row in found.rows] == [(2, 0), (0, 2)]
    run(grid, QUIET, replace(fake, failing=("minmax",)))
    assert len(fake.calls) == 6
    run(grid, QUIET, fake)
    assert fake.calls[6:] == ["minmax w8 3 0", "minmax w8 3 1"]
    result = grid_result(grid)(grid.cells[0])
    assert result is not None
    assert (result.attempts, result.reason, result.complete) == (3, None, True)


def raising(error: BaseException, fake: FakeCalibrator) -> Calibrate:
    """Instead of every artifact of minmax."""

    def calibrate(recipe: Recipe, reporter: Reporter, work: Path) -> Calibrated:
        if recipe.calibrate.method == "minmax":
            raise error
        return fake(recipe, reporter, work)

    return calibrate


def test_a_fault_of_the_program_costs_the_cell_alone(grid: Grid, fake: FakeCalibrator) -> None:
    run(grid, QUIET, raising(AttributeError("no such\nthing"), fake))
    found = collect(grid, grid_result(grid))
    assert [(row.failed, len(row.seeds)) for row in found.rows] == [(2, 0), (0, 2)]
    reasons = set(found.with_state("failed").values())
    assert all(
        reason is not None
        and re.match(r"a fault of dq-toolchain: AttributeError: no such thing \(test_run\.py, line \d+\); ", reason)
        for reason in reasons
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), torch.OutOfMemoryError(), OSError(28, "full")])
def test_what_is_not_of_the_cell_ends_the_comparison(error: BaseException, grid: Grid, fake: FakeCalibrator) -> None:
    with pytest.raises(type(error)):
        run(grid, QUIET, raising(error, fake))
    assert not collect(grid, grid_result(grid)).with_state("failed")


def test_an_extractor_that_comes_later_costs_no_calibration(
    grid: Grid, fake: FakeCalibrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "extractor_for", none_at_all)
    run(grid, QUIET, fake)
    found = collect(grid, grid_result(grid))
    assert (found.extractor, found.extractor_reason) == (None, "no classifier here; add one")
    assert {row.figures["frechet"] for row in found.rows} == {None}
    monkeypatch.setattr(sets, "extractor_for", lambda *_: Pixels())
    run(grid, QUIET, fake)
    assert len(fake.calls) == 4
    later = collect(grid, grid_result(grid))
    assert (later.extractor, later.extractor_reason) == ("quarters", None)
    held = next((grid.folder / "held_out").glob("*.safetensors"))
    fp32 = sets_features(held, "latents")[-1]
    own = sets_features(grid.cell_folder(grid.cells[0]) / SAMPLES, "samples")
    result = grid_result(grid)(grid.cells[0])
    assert result is not None
    assert result.figures is not None
    assert result.figures["frechet"] == frechet_distance(Pixels().features(own), Pixels().features(fp32))
    assert later.rows[0].figures["psnr_median"] == found.rows[0].figures["psnr_median"]


def sets_features(path: Path, name: str) -> Tensor:
    from safetensors.torch import load_file

    return load_file(path)[name]


def test_checkpoints_go_when_the_cells_that_share_them_are_done(grid: Grid, fake: FakeCalibrator) -> None:
    """Those of a seed whose cells are not all complete stay; so does what others put there."""
    works = [grid.work(cell) for cell in grid.cells]
    assert works[0] == works[1] != works[2] == works[3]
    kept: list[list[str]] = []

    def calibrate(recipe: Recipe, reporter: Reporter, work: Path) -> Calibrated:
        kept.append(sorted({each.name for each in works if each.exists()}))
        CheckpointFile.of(work, "fit", f"{len(kept)}" * 64).save({}, {})
        made = fake(recipe, reporter, work)
        if recipe.run.seed == 1 and recipe.calibrate.method == "mse":
            raise ToolchainError("this one fails")
        return made

    run(grid, QUIET, calibrate)
    first, second = works[0].name, works[2].name
    assert kept == [[], [first], [], [second]]
    assert len(list(works[2].iterdir())) == 2
    (works[2].parent / "notes").write_text("mine")
    run(grid, QUIET, fake)
    assert [path.name for path in works[2].parent.iterdir()] == ["notes"]


def test_a_decoder_that_cannot_be_read_is_found_before_the_first_cell_and_costs_the_pictures_only(
    grid: Grid, fake: FakeCalibrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    broken = replace(grid, no_pictures="vae/ is [incomplete]")
    monkeypatch.setattr(QUIET, "warn", lambda line: lines.append(f"{len(fake.calls)} {line}"))
    run(broken, QUIET, fake)
    found = collect(broken, grid_result(broken))
    assert set(found.states.values()) == {("complete", None)}
    assert lines == ["0 the page shows latents, not pictures; no figure depends on it: vae/ is [incomplete]"]
    assert found.pictures_reason == "vae/ is [incomplete]"
    assert "vae/ is [incomplete]" in render(found)


def test_a_decoder_that_fails_later_costs_the_pictures_only(
    grid: Grid, fake: FakeCalibrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(_latents: Tensor) -> Tensor:
        raise ModelError("the decoder\nfails")

    lines: list[str] = []
    monkeypatch.setattr(QUIET, "warn", lines.append)
    monkeypatch.setattr(run_module, "find_decoder", lambda *_: decode)
    run(grid, QUIET, fake)
    found = collect(grid, grid_result(grid))
    assert set(found.states.values()) == {("complete", None)}
    assert found.rows[0].figures["psnr_median"] is not None
    assert [line.rpartition(": ")[2] for line in lines] == ["the decoder fails"]
    assert found.pictures_reason == "the decoder fails"
