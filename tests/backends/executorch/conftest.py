"""Artifacts small enough to lower in seconds, and the bundles made of them once per session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from dq_toolchain import backends
from dq_toolchain.backends.executorch.settings import Settings
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.reference import Reference
from tests import tiny, tiny_artifacts
from tests.shared import once


def small_artifact(
    step_groups: int = 2, guidance: float = 1.0, **options: object
) -> tuple[Artifact, nn.Module, Reference]:
    """A min-max artifact of ``tiny.small_unet`` with its FP32 network and held-out rollouts."""
    artifact, unet = tiny_artifacts.tiny_artifact(step_groups=step_groups, unet=tiny.small_unet(), **options)  # type: ignore[arg-type]
    artifact = replace(artifact, guidance=guidance)
    return artifact, unet, tiny_artifacts.tiny_reference(artifact, unet)


def lower_into(
    folder: Path, artifact: Artifact, reference: Reference, step_groups_as: str = "input"
) -> tuple[Bundle, Path]:
    """Save the artifact, lower it, and return the bundle and its folder."""
    artifact.save(folder / "calibration", reference)
    out = folder / "bundle"
    settings = Settings.model_validate({"step_groups_as": step_groups_as})
    return backends.load("executorch").lower(artifact, folder / "calibration", out, settings, lambda _: None), out


Lowered = tuple[Artifact, nn.Module, Reference, Bundle, Path]


def lowered(
    folders: pytest.TempPathFactory,
    name: str,
    made: tuple[Artifact, nn.Module, Reference],
    step_groups_as: str = "input",
) -> Lowered:
    """A bundle that is lowered once, whichever process of the tests asks first."""
    artifact, unet, reference = made
    out = (
        once(folders, f"executorch-{name}", lambda folder: lower_into(folder, artifact, reference, step_groups_as))
        / "bundle"
    )
    return artifact, unet, reference, Bundle.load(out), out


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Sentinel form, 2 step groups, affine, with guidance, smoothed convolutions and a correction."""
    artifact, unet, _ = small_artifact(guidance=2.0, scheme="affine", smoothed=True)
    artifact = tiny_artifacts.corrected(artifact)
    return lowered(tmp_path_factory, "small", (artifact, unet, tiny_artifacts.tiny_reference(artifact, unet)))


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Static form, 2 step groups."""
    return lowered(tmp_path_factory, "static", small_artifact(), "methods")
