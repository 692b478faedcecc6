"""Layers that the recipe keeps in float: listed by name, executed, and the audit knows their weights on every target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir
import pytest

from dq_toolchain import backends
from dq_toolchain.backends.coreml.graph.qparams import QParams
from dq_toolchain.backends.coreml.interpreter.program import load
from dq_toolchain.backends.coreml.package import packages_in
from dq_toolchain.backends.coreml.proof.audit import Expected
from dq_toolchain.backends.coreml.proof.audit import audit as audit_coreml
from dq_toolchain.backends.executorch.proof.audit import audit as audit_executorch
from dq_toolchain.backends.executorch.proof.pte_file import read_pte
from dq_toolchain.backends.tensorrt.proof.audit import audit as audit_tensorrt
from dq_toolchain.toolchain.errors import ArtifactError, BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.quant.site import KEPT
from dq_toolchain.toolchain.recipe.loading import load_recipe
from tests import tiny
from tests.backends.executorch.conftest import small_artifact

CONVOLUTION, LINEAR = "down_blocks.0.resnets.0.conv1", "time_embedding.linear_1"
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "sentinel": ("executorch", {"form": "sentinel"}),
    "static": ("executorch", {"form": "static"}),
    "Core ML": ("coreml", {}),
    "TensorRT": ("tensorrt", {"mode": "static"}),
    "TensorRT, ratios": ("tensorrt", {"mode": "ratio"}),
}


def _lower(folder: Path, target: str, settings: dict[str, Any]) -> tuple[Artifact, Bundle, Path]:
    artifact, unet, _ = small_artifact()
    kept = tiny.with_kept_layers(artifact, unet, CONVOLUTION, "time_*.linear_1")
    kept.save(folder / "calibration", tiny.tiny_reference(kept, unet))
    recipe = load_recipe(None, {target: settings})
    loaded = Artifact.load(folder / "calibration")
    bundle = backends.load(target).lower(loaded, folder / "calibration", folder / "bundle", recipe, lambda _: None)
    return loaded, bundle, folder / "bundle"


def _audit_executorch(folder: Path, artifact: Artifact) -> None:
    audit_executorch(read_pte(folder / "model.pte"), artifact)


def _audit_coreml(folder: Path, artifact: Artifact) -> None:
    programs = load(*packages_in(folder / Bundle.load(folder).program))
    audit_coreml({name: programs[name] for name in sorted(programs)}, artifact, Expected(QParams.of(artifact)))


def _audit_tensorrt(folder: Path, artifact: Artifact) -> None:
    audit_tensorrt(onnx_ir.load(min((folder / "model").glob("*.onnx"))).graph, artifact, 0)


AUDITS: dict[str, Callable[[Path, Artifact], None]] = {
    "executorch": _audit_executorch,
    "coreml": _audit_coreml,
    "tensorrt": _audit_tensorrt,
}


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=pytest.mark.slow if form == "static" else ()) for form in FORMS]
)
def test_kept_layers_are_lowered_run_and_audited(form: str, tmp_path: Path) -> None:
    """Lowering itself executes the program and compares it with the simulation, in which these layers are float."""
    target, settings = FORMS[form]
    artifact, bundle, folder = _lower(tmp_path, target, settings)
    assert sorted(artifact.kept) == [CONVOLUTION, LINEAR]
    rows = [row for row in bundle.operations if row.why == KEPT]
    assert sum(row.count for row in rows) == 2 * len(bundle.methods)
    if form in ("sentinel", "Core ML", "TensorRT"):
        audit = AUDITS[target]
        audit(folder, artifact)
        for name in artifact.kept:
            weight = artifact.float_parameters[f"{name}.weight"].clone()
            weight.view(-1)[3] += 0.01
            changed = replace(artifact, float_parameters={**artifact.float_parameters, f"{name}.weight": weight})
            with pytest.raises(BackendError, match=r"keep_float|kept in float"):
                audit(folder, changed)


def test_an_artifact_with_a_layer_in_neither_list_is_refused(tmp_path: Path) -> None:
    artifact, unet, _ = small_artifact()
    kept = tiny.with_kept_layers(artifact, unet, CONVOLUTION)
    kept.save(tmp_path, tiny.tiny_reference(kept, unet))
    hidden = replace(kept, float_operations=tuple(op for op in kept.float_operations if op.layer != CONVOLUTION))
    with pytest.raises(ArtifactError, match=f"{CONVOLUTION} must be either"):
        hidden.check(tmp_path)
