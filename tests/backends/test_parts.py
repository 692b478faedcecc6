"""Whole small pipelines, text encoders and decoder included, exported for the targets whose programs are ONNX graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain import backends
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from tests.test_pipelines import PIPELINES, prompts, recipe

FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tensorrt": ({}, {}),
    "tensorrt fp16": ({}, {"jetpack": 7}),
    "qnn": ({"activation_bits": 16, "outputs": "range", "step_vectors": True}, {}),
}
"""[quantize] of the recipe, and settings of the target."""


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["sd15", "lcm", "sdxl"])
def test_a_pipeline_is_exported_with_its_parts(name: str, form: str, tmp_path: Path) -> None:
    quantize, settings = FORMS[form]
    target = form.partition(" ")[0]
    model, out = PIPELINES[name](tmp_path / name), tmp_path / "out"
    calibrate(recipe(model, out, conditioning=prompts(tmp_path), quantize=quantize), Reporter(quiet=True))
    source = out / "calibration"
    found, backend = PartsArtifact.load(source), backends.load(target)
    assert found is not None
    bundle = backend.lower(
        Artifact.load(source), source, out / target, backends.settings(target)(**settings), lambda _: None, parts=found
    )
    about = json.loads((out / target / "pipeline.json").read_text())
    assert [row["name"] for row in about["parts"]] == [part.name for part in found.parts]
    for row in about["parts"]:
        assert (row["psnr"] or 0) >= 30 or row["cosine"] >= 0.99
        assert f"parts/{row['name']}/{row['name']}.onnx" in bundle.files
