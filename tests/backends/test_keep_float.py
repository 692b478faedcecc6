"""Layers that the recipe keeps in float: listed by name, executed, and the audit knows their weights on every target."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain import backends
from dq_toolchain.toolchain.errors import ArtifactError, BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.quant.site import KEPT
from dq_toolchain.toolchain.recipe.sections import TargetSection
from tests import tiny_artifacts
from tests.backends.executorch.conftest import small_artifact

CONVOLUTION, LINEAR = "down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.0.time_emb_proj"
OTHER = {
    (name, value): pytest.mark.slow if (name, value) == ("executorch", "methods") else ()
    for name, section in backends.sections().items()
    for value in ("input", "methods")
    if "step_groups_as" in section.model_fields and value != section().model_dump()["step_groups_as"]
}
"""Of every target, what is not its default form; one method per step group takes minutes to lower."""


def _audited(target: str) -> Any:
    """What the tests of a target say of its programs, and of the artifacts that it takes."""
    return importlib.import_module(f"tests.backends.{target}.audited")


def _lower(folder: Path, target: str, settings: TargetSection) -> tuple[Artifact, Bundle, Path]:
    artifact, unet, _ = small_artifact()
    artifact, unet = getattr(_audited(target), "as_taken", lambda *same: same)(artifact, unet)
    kept = tiny_artifacts.with_kept_layers(artifact, unet, CONVOLUTION, LINEAR)
    kept.save(folder / "calibration", tiny_artifacts.tiny_reference(kept, unet))
    loaded = Artifact.load(folder / "calibration")
    bundle = backends.load(target).lower(loaded, folder / "calibration", folder / "bundle", settings, lambda _: None)
    return loaded, bundle, folder / "bundle"


def _check(artifact: Artifact, bundle: Bundle) -> None:
    assert sorted(artifact.float_layers) == [CONVOLUTION, LINEAR]
    rows = [row for row in bundle.operations if row.why == KEPT]
    assert sum(row.count for row in rows) == 2 * len(bundle.methods)


@pytest.mark.parametrize(
    "target",
    [pytest.param(name, marks=pytest.mark.slow if name == backends.DEFAULT else ()) for name in backends.names()],
)
def test_kept_layers_are_lowered_run_and_audited(target: str, tmp_path: Path) -> None:
    """Lowering itself executes the program and compares it with the simulation, in which these layers are float."""
    artifact, bundle, folder = _lower(tmp_path, target, backends.settings(target)())
    _check(artifact, bundle)
    audit = _audited(target).audit_bundle
    audit(folder, artifact)
    for name in artifact.float_layers:
        weight = artifact.float_parameters[f"{name}.weight"].clone()
        weight.view(-1)[3] += 0.01
        changed = replace(artifact, float_parameters={**artifact.float_parameters, f"{name}.weight": weight})
        with pytest.raises(BackendError, match=r"keep_float|kept in float"):
            audit(folder, changed)


@pytest.mark.parametrize(("target", "form"), [pytest.param(*each, marks=marks) for each, marks in OTHER.items()])
def test_kept_layers_are_lowered_in_the_other_form(target: str, form: str, tmp_path: Path) -> None:
    settings = backends.settings(target).model_validate({"step_groups_as": form})
    artifact, bundle, _ = _lower(tmp_path, target, settings)
    _check(artifact, bundle)


def test_an_artifact_with_a_layer_in_neither_list_is_refused(tmp_path: Path) -> None:
    artifact, unet, _ = small_artifact()
    kept = tiny_artifacts.with_kept_layers(artifact, unet, CONVOLUTION)
    kept.save(tmp_path, tiny_artifacts.tiny_reference(kept, unet))
    hidden = replace(kept, float_operations=tuple(op for op in kept.float_operations if op.layer != CONVOLUTION))
    with pytest.raises(ArtifactError, match=f"{CONVOLUTION} must be either"):
        hidden.check(tmp_path)
