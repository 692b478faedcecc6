"""Bundles that an earlier version wrote still run and pass `validate`: what is on a device need not be exported again.

tests/data/bundles_VERSION holds one of every target: 2 step groups, a correction, 10 held-out seeds, as many as a verdict needs.
That of 'executorch' was lowered by executorch 1.4.1; 'coreml' has 2 steps, as its interpreter is slow.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.verdict.judge import validate

DATA = Path(__file__).parents[1] / "data"
BUNDLES = sorted(DATA.glob("bundles_*/*"))


def test_there_is_one_of_every_target_that_the_version_had() -> None:
    assert {folder.name for folder in (DATA / "bundles_0.1").iterdir()} == {"coreml", "executorch", "tensorrt"}


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_it_runs_and_validates(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(folder)
    assert bundle.target == folder.name
    report = run_bundle(backends.load(bundle.target), bundle, folder, tmp_path)
    verdict = validate(report, folder)
    assert verdict.fidelity
    assert verdict.conformance
    assert verdict.passed, [check.detail for check in verdict.checks if not check.passed]


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_its_damage_is_still_found(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "bundle"))
    largest = max((copy / name for name in Bundle.load(copy).files), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{largest.name} was changed"):
        Bundle.load(copy)
