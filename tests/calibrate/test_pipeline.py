"""From a recipe to an artifact: stages are taken from their checkpoints, and what decides a calibration is what it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dq_toolchain.calibrate import pipeline
from dq_toolchain.calibrate.pipeline import Calibrated, calibrated
from tests.calibrate.conftest import QUIET, tiny_recipe

FEW = {"samples": 4, "batch": 4, "warmup": 2, "iterations": 0, "settling": 0, "group_iterations": 0}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline") / "work"


@pytest.fixture(scope="module")
def first(tiny_model: Path, work: Path) -> Calibrated:
    return calibrated(tiny_recipe(tiny_model, work.parent, calibrate=FEW), QUIET, work)


def test_what_is_in_the_folder_is_not_done_again(
    first: Calibrated, work: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = sorted(path.name.split("-")[0] for path in work.glob("*.safetensors"))
    assert stages == ["fit", "ranges", "rollouts"]
    for name in ("observe_rollouts", "shared_rollouts", "observe_chosen"):
        monkeypatch.setattr(pipeline, name, lambda *_: pytest.fail("that is there"))
    again = calibrated(tiny_recipe(tiny_model, work.parent, calibrate=FEW), QUIET, work)
    assert torch.equal(again.artifact.scale, first.artifact.scale)
    for name, layer in first.artifact.layers.items():
        assert torch.equal(again.artifact.layers[name].weight_q, layer.weight_q)
    assert again.artifact.record == first.artifact.record
    assert again.seconds >= 0.5 * first.seconds  # what was done earlier counts


def test_another_fit_of_the_same_samples_takes_rollouts_and_ranges(
    first: Calibrated, work: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "observe_rollouts", lambda *_: pytest.fail("that is there"))
    other = calibrated(tiny_recipe(tiny_model, work.parent, calibrate={**FEW, "warmup": 3}), QUIET, work)
    assert other.artifact.record["stages"] != first.artifact.record["stages"]


def test_the_record_is_plain_and_says_how_it_was_made(first: Calibrated) -> None:
    record = dict(first.artifact.record)
    assert json.loads(json.dumps(record)) == record
    assert record["device"] == "cpu"
    assert [stage["iterations"] for stage in record["stages"]] == [2]
    assert record["recipe"]["calibrate"]["samples"] == 4
    assert "out" not in record["recipe"]["run"]
    assert set(record["versions"]) >= {"torch", "diffusers"}
