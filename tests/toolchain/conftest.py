"""A folder with a model, an artifact and a judged bundle, for tests of the whole command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dq_toolchain.toolchain.checks import MINIMUM_SEEDS
from tests.tiny import tiny_condition_unet, write_tiny_model
from tests.tiny_artifacts import tiny_artifact, tiny_reference
from tests.toolchain import devices
from tests.toolchain.devices import CORRECT, Case, case, write_bundle, write_run

SEEDS = MINIMUM_SEEDS
"""As many as a verdict needs."""


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an artifact, and a bundle with the report of an emulated device."""
    folder = tmp_path_factory.mktemp("originals")
    write_tiny_model(folder / "model")
    write_tiny_model(folder / "text-model", tiny_condition_unet())
    artifact, unet = tiny_artifact()
    artifact.save(folder / "dq-out" / "calibration", tiny_reference(artifact, unet))
    made = devices.case(seeds=SEEDS)
    bundle = devices.write_bundle(folder / "dq-out" / "executorch", made)
    devices.write_run(bundle, made, devices.run(made.artifact, made.reference))
    return folder


@pytest.fixture
def box(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the originals as the current folder."""
    monkeypatch.chdir(shutil.copytree(originals, tmp_path / "box"))
    return tmp_path / "box"


@pytest.fixture(scope="session")
def made() -> Case:
    return case()


@pytest.fixture(scope="session")
def good(made: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the report of a correct device inside."""
    folder = write_bundle(tmp_path_factory.mktemp("good"), made)
    write_run(folder, made, CORRECT["fake-quantized float32"](made))
    return folder


@pytest.fixture
def bundle(good: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(good, tmp_path / "bundle"))
