"""Every target's programs take a row of step vectors in the place of the timestep, each step count its own rows."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.toolchain.disk.files import read_tensors, seal
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import JSON, Bundle
from dq_toolchain.toolchain.formats.bundle_checks import STEP_VECTORS
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.verdict.doctor import examine
from dq_toolchain.toolchain.verdict.judge import validate
from tests import tiny_artifacts
from tests.backends.test_samplings import OTHERS, with_others
from tests.shared import once

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "executorch": ("executorch", {}),
    "coreml-fp16": ("coreml", {}),
    "tensorrt-fp16": ("tensorrt", {"jetpack": 7}),
    "tensorrt-input-fp32": ("tensorrt", {"step_groups_as": "input"}),
    "coreai-fp16": ("coreai", {}),
    "coreai-input-fp32": ("coreai", {"step_groups_as": "input", "precision": "fp32"}),
    "qnn": ("qnn", {}),
}
"""Target and settings by name."""
REMEDY = "again"


@pytest.fixture(scope="module", params=FORMS)
def lowered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``calibration`` and ``bundle``."""
    target, settings = FORMS[request.param]
    info = backends.describe(target)
    if info.version is None:
        pytest.skip(f"needs {info.library}")

    def make(folder: Path) -> None:
        audited = importlib.import_module(f"tests.backends.{target}.audited")
        artifact, reference, others = with_others(getattr(audited, "as_taken", tiny_artifacts.with_step_vectors))
        artifact.save(folder / "calibration", reference, others)
        section = backends.settings(target).model_validate(settings)
        loaded = Artifact.load(folder / "calibration")
        backends.load(target).lower(loaded, folder / "calibration", folder / "bundle", section, lambda _: None)

    return once(tmp_path_factory, f"step-vectors-{request.param}", make)


def test_program_takes_the_row_and_computes_no_sinusoid(lowered: Path) -> None:
    artifact, bundle = Artifact.load(lowered / "calibration"), Bundle.load(lowered / "bundle")
    assert artifact.step_vectors is not None
    ports = {port.name: port for port in bundle.inputs}
    assert "timestep" not in ports
    assert (ports["step_vectors"].dtype, ports["step_vectors"].shape) == ("float32", (1, artifact.step_vectors.width))
    names = {row.name.rsplit(".", 1)[-1].lower() for row in bundle.operations}
    assert names.isdisjoint({"sin", "cos", "sine", "cosine"})


def test_every_step_count_has_rows_of_its_own(lowered: Path) -> None:
    artifact, bundle = Artifact.load(lowered / "calibration"), Bundle.load(lowered / "bundle")
    rows = bundle.step_vectors(lowered / "bundle")
    assert rows is not None
    assert artifact.step_rows is not None
    assert torch.equal(rows, artifact.step_rows)
    for other in artifact.samplings:
        found = bundle.at(other.steps, other.guidance).step_vectors(lowered / "bundle")
        wanted = artifact.at(other).step_rows
        assert found is not None
        assert wanted is not None
        assert torch.equal(found, wanted)
        assert found.shape == (other.table.calls, rows.shape[1])


def test_each_runs_and_passes(lowered: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(lowered / "bundle")
    assert all(check.passed for check in examine(lowered / "bundle"))
    for steps, guidance in ((4, 2.0), *OTHERS):
        report = run_bundle(
            backends.load(bundle.target),
            bundle,
            lowered / "bundle",
            tmp_path / str(steps),
            steps=steps,
            guidance=guidance,
            seeds=1,
        )
        assert json.loads(report.read_text())["steps"] == steps
        verdict = validate(report)
        assert not verdict.failed, verdict.to_json()
        reference = bundle.at(steps, guidance).reference(lowered / "bundle")
        outputs = read_tensors(report.parent / "report.safetensors", REMEDY)["outputs_at_simulation"]
        fp32 = reference.fp32_outputs_at_simulation[:, :1]
        simulated = relative_error(reference.simulation_outputs[:, :1], fp32).mean()
        assert 0.8 < relative_error(outputs, fp32).mean() / simulated < 1.25


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d["samplings"][0].pop("step_vectors"), "must name a file of step_vectors"),
        (lambda d: d["samplings"][0].update(step_vectors="../x"), "must be a name in the folder"),
        (lambda d: d["samplings"][0].update(step_vectors="step_vectors-9.safetensors"), "lists no file"),
        (lambda d: d["samplings"][0].update(step_vectors=None), "is not of type 'string'"),
    ],
)
def test_a_sampler_without_rows_is_refused(change: Any, text: str, tmp_path: Path) -> None:
    data = _copied(tmp_path)
    change(data)
    (tmp_path / JSON).write_text(json.dumps(seal(data)))
    with pytest.raises(ArtifactError, match=text):
        Bundle.load(tmp_path)


def test_rows_of_another_step_count_are_seen_by_doctor(tmp_path: Path) -> None:
    data = _copied(tmp_path)
    data["samplings"][0]["step_vectors"] = STEP_VECTORS
    (tmp_path / JSON).write_text(json.dumps(seal(data)))
    faults = [check for check in examine(tmp_path) if not check.passed]
    assert [check.name for check in faults] == ["doctor.sampling"]
    assert "must hold 'step_vectors' of shape (2, 7)" in faults[0].detail


def _copied(folder: Path) -> dict[str, Any]:
    """A golden bundle with step vectors and other samplers in ``folder``; its bundle.json, to be sealed again."""
    golden = Path(__file__).parents[2] / "runtime_samples" / "golden" / "samplers" / "two-vectors" / "bundle"
    for file in golden.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    data: dict[str, Any] = json.loads((folder / JSON).read_text())
    del data["content_sha256"]
    return data
