"""The core is a project of its own: it is built without any program around it, and CTest runs its tests."""

from __future__ import annotations

import subprocess

import pytest

from tests.runtime_samples.building import build
from tests.runtime_samples.cpp_core.conftest import SOURCE


@pytest.mark.slow
def test_the_core_is_built_and_tested_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = build(tmp_path_factory, SOURCE, "core_alone", ["dq-unit-tests", "dq-fuzz"], "-DDQ_SANITIZE=ON")
    done = subprocess.run(
        ["ctest", "--test-dir", str(folder), "--output-on-failure"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "100% tests passed, 0 tests failed out of 2" in done.stdout
