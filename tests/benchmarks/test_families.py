"""The table of families: what is asked for is followed, what is refused is a row, what is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.families import FAMILIES, Refused, Row, cell, measure, show
from scripts.published.layouts import LAYOUTS

from benchmarks import families

FLOAT = 'conv_depth has 160 channel groups; calibrate with keep_float = ["*conv_depth"] (--keep-float)'
FORM = FLOAT.replace("calibrate", "export with --step-groups-as methods, or calibrate")
FOUND: dict[str, Row] = {
    "model": {"error": 1e-7, "parameters": 5},
    "calibrate": {},
    "export": {"integer_products": 7, "float_layers": {"kept": 2}, "bytes": 9, "cpu_seconds": 1.0, "peak_mb": 500.0},
    "run": {
        "outcome": "pass",
        "failed": [],
        "psnr": 40.0,
        "psnr_simulation": 100.0,
        "cpu_seconds": 1.0,
        "peak_mb": 500.0,
    },
}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Jobs that were asked for, in order, and what refuses: job -> its text, for artifacts without layers in float."""
    seen: dict[str, Any] = {"done": [], "refuse": {}}

    def job(what: str, place: Path, **given: Any) -> Row:
        seen["done"].append((what, given))
        if what in seen["refuse"] and not str(given.get("out")).endswith("-kept") and "step_groups_as" not in given:
            raise Refused(seen["refuse"][what])
        return FOUND[what]

    monkeypatch.setattr(families, "job", job)
    return seen


def test_every_family_is_a_published_layout() -> None:
    assert set(FAMILIES.values()) <= set(LAYOUTS)


def test_a_target_that_asks_for_layers_in_float_gets_them(jobs: dict[str, Any], tmp_path: Path) -> None:
    jobs["refuse"] = {"export": FLOAT}
    row = cell("SANA", "executorch", tmp_path)
    assert (row["outcome"], row["keep_float"]) == ("pass", ["*conv_depth"])
    assert [given["keep_float"] for what, given in jobs["done"] if what == "calibrate"] == [[], ["*conv_depth"]]


def test_a_target_that_asks_for_another_form_gets_it_and_keeps_its_integers(
    jobs: dict[str, Any], tmp_path: Path
) -> None:
    jobs["refuse"] = {"export": FORM}
    row = cell("SANA", "executorch", tmp_path)
    assert (row["outcome"], row["keep_float"], row["step_groups_as"]) == ("pass", [], "methods")
    assert [given["keep_float"] for what, given in jobs["done"] if what == "calibrate"] == [[], []]


def test_what_is_refused_is_a_row_with_its_reason(jobs: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    jobs["refuse"] = {"export": "a long story\nconv_in has padding 'same'; use another UNet"}
    rows = list(measure(["DiT"], ["coreml", "qnn"], tmp_path))
    assert [row["outcome"] for row in rows] == ["refused", "refused"]
    show(rows)
    said = capsys.readouterr().out
    assert "conv_in has padding" in said
    assert "DiT: FP32 latents within 1.0e-07" in said


def test_only_the_npu_has_a_calibration_of_its_own(jobs: dict[str, Any], tmp_path: Path) -> None:
    list(measure(["DiT"], families.TARGETS, tmp_path))
    made = {given["out"]: given["npu"] for what, given in jobs["done"] if what == "calibrate"}
    assert made == {tmp_path / "dit" / "a8": False, tmp_path / "dit" / "a16": True}


def test_a_job_that_was_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "done.json"
    place.write_text(json.dumps(FOUND["export"]))
    monkeypatch.setattr(families, "ProcessPoolExecutor", None)
    assert families.job("export", place) == FOUND["export"]


@pytest.mark.slow
def test_a_cell_is_calibrated_exported_run_and_judged(tmp_path: Path) -> None:
    row = cell("DiT", "tensorrt", tmp_path)
    assert (row["outcome"], row["run"]["failed"]) == ("pass", [])
    assert row["trajectory_error"] <= 1e-5
    assert row["export"]["integer_products"] > 10
    assert row["run"]["psnr_simulation"] > row["run"]["psnr"] > 20
    missing = families.job
    with pytest.raises(Refused, match=r"cannot read|no such"):
        missing("export", tmp_path / "x.json", out=tmp_path / "nowhere", target="tensorrt")
