"""Whole small pipelines, text encoders and decoder included, exported for the targets whose programs are ONNX graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain import backends
from dq_toolchain.backends.common.generate import generate
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.prompting import Wish
from tests.test_pipelines import PIPELINES, prompts, recipe
from tests.tiny_pipelines import PROMPTS

QUANTIZE: dict[str, dict[str, Any]] = {
    "tensorrt": {},
    "qnn": {"activation_bits": 16, "outputs": "range", "step_vectors": True},
}
"""Target -> [quantize] of the recipe."""
SETTINGS: dict[tuple[str, str], tuple[dict[str, Any], ...]] = {
    (name, "tensorrt"): ({}, {"jetpack": 7}) for name in ("sd15", "sdxl")
}
"""Pipeline and target -> settings of the target; elsewhere the default ones."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"), [("sd15", "tensorrt"), ("sdxl", "tensorrt"), ("lcm", "qnn"), ("sdxl", "qnn")]
)
def test_a_pipeline_is_exported_with_its_parts_and_draws(name: str, target: str, tmp_path: Path) -> None:
    model, out = PIPELINES[name](tmp_path / name), tmp_path / "out"
    calibrate(recipe(model, out, conditioning=prompts(tmp_path), quantize=QUANTIZE[target]), Reporter(quiet=True))
    source = out / "calibration"
    found, backend = PartsArtifact.load(source), backends.load(target)
    assert found is not None
    for settings in SETTINGS.get((name, target), ({},)):
        given, said = backends.settings(target)(**settings), list[str]()
        bundle = backend.lower(Artifact.load(source), source, out / target, given, said.append, parts=found)
        about = json.loads((out / target / "pipeline.json").read_text())
        assert [row["name"] for row in about["parts"]] == [part.name for part in found.parts]
        for row in about["parts"]:
            assert (row["psnr"] or 0) >= 30 or row["cosine"] >= 0.99
            assert f"parts/{row['name']}/{row['name']}.onnx" in bundle.files
        picture = generate(backend, bundle, out / target, Wish(prompt=PROMPTS[0], seed=7), warn=said.append)
        assert tuple(picture.pixels.shape) == tuple(about["decoder"][side] for side in ("channels", "height", "width"))
        assert picture.pixels.float().std() > 0
