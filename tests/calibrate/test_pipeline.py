"""From a recipe to an artifact: stages are taken from their checkpoints, and what decides a calibration is what it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dq_toolchain.calibrate import pipeline
from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.pipeline import Calibrated, calibrated, deciding
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


@pytest.mark.parametrize(
    ("method", "changes", "decides"),
    [
        ("accuquant", {"calibrate": {"iterations": 9}}, True),
        ("accuquant", {"blocks": {"iterations": 9}}, False),
        ("qdiffusion", {"blocks": {"iterations": 9}}, True),
        ("qdiffusion", {"calibrate": {"iterations": 9}}, False),
        ("mse", {"calibrate": {"iterations": 9}}, False),
        ("mse", {"calibrate": {"samples": 9}}, True),
        ("mse", {"quantize": {"weight_bits": 4}}, True),
        ("mse", {"run": {"out": Path("elsewhere")}}, False),
        ("mse", {"reference": {"seeds": 9}}, False),
    ],
)
def test_a_setting_decides_where_the_method_reads_it(
    method: str, changes: dict[str, dict[str, object]], decides: bool, tiny_model: Path, tmp_path: Path
) -> None:
    plain = deciding(tiny_recipe(tiny_model, tmp_path), resolve(method))
    changed = deciding(tiny_recipe(tiny_model, tmp_path, **changes), resolve(method))
    assert (plain != changed) is decides
