"""What the commands print of a calibration, a bundle and the targets: figures that follow from the files, as data and as text."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.render.summary import (
    bundle_summary,
    calibration_summary,
    inspect_folder,
    show_bundle,
    show_calibration,
    show_inspection,
    show_targets,
)
from tests.toolchain.devices import Case

FOLDER = Path("dq-out/calibration")


def printed(show: Callable[[Console], None]) -> str:
    stream = io.StringIO()
    show(Console(width=250, file=stream))
    return stream.getvalue()


def with_record(artifact: Artifact, **record: Any) -> Artifact:
    return replace(artifact, record={**artifact.record, **record})


def test_a_calibration_is_summed_up_by_its_held_out_samples(made: Case) -> None:
    summary = calibration_summary(FOLDER, made.artifact, made.reference)
    values = psnr(made.reference.simulation_latents[-1], made.reference.fp32_latents[-1])
    assert summary["simulation_psnr_median"] == pytest.approx(float(torch.quantile(values, 0.5)))
    assert summary["simulation_psnr_p10"] <= summary["simulation_psnr_median"]
    assert (summary["sites"], summary["step_groups"]) == (len(made.artifact.sites), len(made.artifact.step_groups))
    assert summary["budget"] is None
    assert json.loads(json.dumps(summary)) == summary
    said = printed(lambda console: show_calibration(console, summary))
    assert f"median PSNR {summary['simulation_psnr_median']:.1f} dB" in said
    assert said.splitlines()[-2:] == [f"calibration: {FOLDER}", "next: dq-toolchain export"]


def test_stages_of_both_kinds_are_shown(made: Case) -> None:
    stages = [
        {"stage": "settling", "iterations": 7, "validation_psnr": 31.24},
        {"phase": "weights", "unit": "a", "before": 2.0, "after": 1.0},
        {"phase": "weights", "unit": "b", "before": 2.0, "after": 0.5},
        {"phase": "weights", "unit": "of zeros", "before": 0.0, "after": 0.0},
    ]
    summary = calibration_summary(FOLDER, with_record(made.artifact, stages=stages), made.reference)
    said = printed(lambda console: show_calibration(console, summary)).splitlines()
    assert said[0].split() == ["settling", "7", "iterations", "validation", "PSNR", "31.2", "dB"]
    assert said[1].split()[:3] == ["weights", "2", "units"]
    assert said[1].endswith("0.38 of before, median")


@pytest.mark.parametrize(("asked", "met"), [("size=0.2", True), ("psnr>=1", True), ("psnr>=200", False)])
def test_a_budget_is_met_or_not(asked: str, met: bool, made: Case) -> None:
    spent = {"asked": asked, "size": 0.19, "psnr_before_fit": 20.0}
    summary = calibration_summary(FOLDER, with_record(made.artifact, budget=spent), made.reference)
    assert summary["budget"]["met"] is met
    assert summary["budget"]["layers"] == {"8": len(made.artifact.layers)}
    said = printed(lambda console: show_calibration(console, summary))
    assert f"budget {asked} {'met' if met else 'not met'}: 0.190 of FP32's weights" in said


def test_a_bundle_shows_every_operation_and_size(good: Path) -> None:
    bundle = Bundle.load(good)
    summary = bundle_summary(good, bundle)
    assert summary["operations"] == [vars(operation) for operation in bundle.operations]
    assert inspect_folder(good) == summary
    said = printed(lambda console: show_bundle(console, summary))
    assert all(operation.name in said and operation.why in said for operation in bundle.operations)
    assert "model.bin" in said
    assert said.splitlines()[-1] == "next: dq-toolchain run --target executorch"
    assert printed(lambda console: show_inspection(console, summary)) == said


def test_an_artifact_shows_every_site_with_its_range_in_each_step_group(originals: Path) -> None:
    folder = originals / "dq-out" / "calibration"
    artifact, found = Artifact.load(folder), inspect_folder(folder)
    assert [row["site"] for row in found["sites"]] == [site.name for site in artifact.sites]
    assert all(len(row["range"]) == len(artifact.step_groups) for row in found["sites"])
    said = printed(lambda console: show_inspection(console, found))
    assert all(site.name in said for site in artifact.sites)
    assert all(operation.layer in said for operation in artifact.float_operations)
    assert "table.correction" not in said


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds neither calibration\.json nor bundle\.json; run `dq-toolchain"):
        inspect_folder(tmp_path)


def test_targets_say_what_is_installed_or_what_to_do() -> None:
    row: dict[str, Any] = {
        "library": "l",
        "schemes": ["symmetric"],
        "weight_bits": [4, 8],
        "verified": "here",
        "install": "pip x",
    }
    found = [
        row | {"name": "one", "version": "1.2", "default": True, "any_size": True},
        row | {"name": "two", "version": None, "default": False, "any_size": False},
    ]
    said = printed(lambda console: show_targets(console, found)).splitlines()
    assert any("one" in line and "1.2" in line and "4, 8" in line for line in said)
    assert any("two" in line and "no: pip x" in line for line in said)
