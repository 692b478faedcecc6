"""Programs that take a row of step vectors in the place of the timestep: audited, executed, equal to the simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.toolchain.disk.files import read_tensors, write_tensors
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle_checks import STEP_VECTORS
from dq_toolchain.toolchain.metrics import relative_error
from tests import tiny, tiny_artifacts
from tests.backends.executorch.conftest import Lowered, lowered

REMEDY = "again"


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Sentinel form, 2 step groups, guidance, a network that takes class labels."""
    artifact, unet = tiny_artifacts.tiny_artifact(step_groups=2, unet=tiny.small_unet())
    artifact, unet = tiny_artifacts.with_step_vectors(replace(artifact, guidance=2.0), unet)
    reference = tiny_artifacts.tiny_reference(artifact, unet)
    return lowered(tmp_path_factory, "step-vectors", (artifact, unet, reference))


def test_program_takes_the_row_and_computes_no_sinusoid(vectors: Lowered) -> None:
    artifact, _, _, bundle, folder = vectors
    assert artifact.step_vectors is not None
    assert [port.name for port in bundle.inputs] == ["sample", "step_vectors", "class_labels", "ranges"]
    assert next(port.shape for port in bundle.inputs if port.name == "step_vectors") == (1, artifact.step_vectors.width)
    rows = bundle.step_vectors(folder)
    assert rows is not None
    assert torch.equal(rows, artifact.step_vectors.rows)
    names = {row.name for row in bundle.operations}
    assert names.isdisjoint({"Sin", "Cos", "Sine", "Cosine"})
    assert not any("sin" in name or "cos" in name for name in names)


def test_device_errs_as_the_simulation_does(vectors: Lowered, tmp_path: Path) -> None:
    _, _, reference, bundle, folder = vectors
    report = run_bundle(backends.load("executorch"), bundle, folder, tmp_path)
    tensors = read_tensors(report.parent / "report.safetensors", REMEDY)
    fp32 = reference.fp32_outputs_at_simulation
    device = relative_error(tensors["outputs_at_simulation"], fp32).mean()
    assert 0.85 < device / relative_error(reference.simulation_outputs, fp32).mean() < 1.15


def test_bundle_with_damaged_rows_is_refused(vectors: Lowered, tmp_path: Path) -> None:
    _, _, _, bundle, folder = vectors
    rows = read_tensors(folder / STEP_VECTORS, REMEDY)["step_vectors"]
    write_tensors(tmp_path / STEP_VECTORS, {"step_vectors": rows[1:]})
    with pytest.raises(ArtifactError, match=r"step_vectors.safetensors must hold 'step_vectors' of shape \(4, 32\)"):
        bundle.step_vectors(tmp_path)
