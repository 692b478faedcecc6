"""What a calibration leaves on disk when it is killed, fails or is repeated, and what the next one takes from there."""

from __future__ import annotations

import contextlib
import math
import random
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dq_toolchain.calibrate import pipeline
from dq_toolchain.calibrate.multistep import fit
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.errors import CalibrationError, ToolchainError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.listing import TENSOR_FILES
from tests.calibrate.conftest import QUIET, tiny_recipe
from tests.processes import Running, start

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from dq_toolchain.calibrate.work import checkpoint
checkpoint.SECONDS_BETWEEN = 0.05
from dq_toolchain.toolchain.cli.entry import run_command
sys.exit(run_command(sys.argv[1:]))
"""
OPTIONS = (
    *("--steps", 4, "--step-groups", 2, "--samples", 8, "--warmup", 40, "--iterations", 20, "--settling", 10),
    *("--horizon", 2, "--device", "cpu"),
)


def _newest(work: Path) -> float:
    """When the last checkpoint was written; files come and go meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return max((path.stat().st_mtime for path in work.glob("*")), default=0.0)
    return 0.0


def test_a_run_killed_at_random_points_ends_in_the_bit_identical_artifact(tiny_model: Path, tmp_path: Path) -> None:
    """Each time after it wrote a checkpoint of its own."""

    def started(out: str) -> Running:
        return start(SCRIPT, "calibrate", "--model", tiny_model, "--out", tmp_path / out, *OPTIONS)

    straight = started("straight").end()
    assert straight.returncode == 0, straight.stderr
    dice, kills = random.Random(11), 0
    for _ in range(2):
        begin, process = time.time(), started("killed")
        while process.is_alive and _newest(tmp_path / "killed" / "calibration.work") <= begin:
            time.sleep(0.02)
        time.sleep(dice.uniform(0.0, 0.5))
        if not process.is_alive:
            break
        process.kill()
        kills += 1
    assert kills >= 2
    last = started("killed").end()
    assert last.returncode == 0, last.stderr
    for name in (*TENSOR_FILES, "reference.safetensors", "calibration.json"):
        assert sha256(tmp_path / "killed" / "calibration" / name) == sha256(
            tmp_path / "straight" / "calibration" / name
        ), name


def test_a_diverging_fit_stops_with_the_reason_and_keeps_its_checkpoint(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "DIVERGED", 0.01)
    monkeypatch.setattr(fit, "EARLY", 1)
    with pytest.raises(CalibrationError, match="diverges"):
        calibrate(tiny_recipe(tiny_model, tmp_path), QUIET)
    assert _checkpoints(tmp_path) == ["ranges", "rollouts"]
    assert not (tmp_path / "calibration").exists()


def test_a_full_disk_keeps_the_last_good_checkpoint(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = safetensors.torch.save_file

    def full(tensors: object, path: Path, **keywords: object) -> None:
        if "fit-" in Path(path).name:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(ToolchainError, match=r"fit-\w+\.safetensors.*No space left"):
        calibrate(tiny_recipe(tiny_model, tmp_path), QUIET)
    assert _checkpoints(tmp_path) == ["ranges", "rollouts"]


def test_what_cannot_be_written_is_said_before_any_work(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "measure", lambda *_: pytest.fail("that is work"))
    recipe = tiny_recipe(tiny_model, tmp_path)
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ToolchainError, match=r"weights\.safetensors: what stands there is a link"):
        calibrate(recipe, QUIET)
    (tmp_path / "calibration" / "weights.safetensors").unlink()
    context = setup(recipe)
    context.model.scheduler_config["lambda_min_clipped"] = -math.inf
    monkeypatch.setattr(pipeline, "setup", lambda *_: context)
    with pytest.raises(ToolchainError, match=r"scheduler_config\.lambda_min_clipped is NaN, infinite"):
        calibrate(recipe, QUIET)


def test_another_list_of_sites_is_never_served_the_first_ones_ranges(tiny_model: Path, tmp_path: Path) -> None:
    """The same number of columns, other layers: every column must be what a fresh calibration gives."""

    def made(keep: str, work: Path) -> Artifact:
        nothing = {"rounding": "nearest", "warmup": 0, "settling": 0, "group_iterations": 0, "iterations": 0}
        recipe = tiny_recipe(tiny_model, tmp_path, quantize={"step_groups": 2, "keep_float": [keep]}, calibrate=nothing)
        return pipeline.calibrated(recipe, QUIET, work).artifact

    first = made("down_blocks.0.resnets.0.conv1", tmp_path / "work")
    second, fresh = (made("mid_block.resnets.0.conv1", tmp_path / name) for name in ("work", "fresh"))
    assert len(first.sites) == len(second.sites)
    assert torch.equal(second.scale, fresh.scale)
    assert torch.equal(second.zero_point, fresh.zero_point)
    stages = sorted(path.stem.split("-")[0] for path in (tmp_path / "work").glob("*.safetensors"))
    assert stages == ["ranges", "ranges", "rollouts"]  # what both consume alike is shared


def test_foreign_files_among_the_checkpoints_stay(tiny_model: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "calibration.work" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("years of work")
    nothing = {"rounding": "nearest", "warmup": 0, "settling": 0, "group_iterations": 0, "iterations": 0}
    calibrate(tiny_recipe(tiny_model, tmp_path, calibrate=nothing), QUIET)
    assert list(theirs.parent.iterdir()) == [theirs]


def _checkpoints(out: Path) -> list[str]:
    return sorted(path.stem.split("-")[0] for path in (out / "calibration.work").glob("*.safetensors"))
