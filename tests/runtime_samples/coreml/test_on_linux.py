"""The Core ML program on Linux: it says that it cannot run there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime_samples.swift import SLOW_AND_ONLY_WITH_SWIFT, inside, packages_tested

pytestmark = SLOW_AND_ONLY_WITH_SWIFT


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    packages_tested()


def test_core_ml_is_only_on_apple_systems(tmp_path: Path) -> None:
    done = inside(["coreml/.build/debug/dq-run", "--bundle", "b", "--report", "r"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Apple" in done.stderr


def test_neither_are_its_pictures(tmp_path: Path) -> None:
    words = ["generate", "--bundle", "b", "--prompt", "a red house", "--out", "picture.png"]
    done = inside(["coreml/.build/debug/dq-run", *words], tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "dq-run generate: " in done.stderr
    assert "Apple" in done.stderr
