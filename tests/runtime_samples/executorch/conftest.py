"""dq-run, built once per session against the wheel, and the bundles of the target's own tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.backends.executorch.conftest import small, static
from tests.backends.executorch.test_step_vectors import vectors
from tests.runtime_samples.building import SAMPLES, build

__all__ = ["dq_run", "small", "static", "vectors"]


@pytest.fixture(scope="session")
def dq_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dq-run, linked with the installed wheel."""
    pytest.importorskip("executorch")
    options = ("-DDQ_EXECUTORCH=wheel", f"-DDQ_PYTHON={sys.executable}")
    return build(tmp_path_factory, SAMPLES / "executorch", "wheel", ["dq-run"], *options) / "dq-run"
