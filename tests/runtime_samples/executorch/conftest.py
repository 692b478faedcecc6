"""dq-run, built once per session against the wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.runtime_samples.cpp_core.conftest import GOLDEN, build


@pytest.fixture(scope="session")
def dq_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dq-run, linked with the installed wheel."""
    pytest.importorskip("executorch")
    options = ("-DDQ_EXECUTORCH=wheel", f"-DDQ_PYTHON={sys.executable}")
    return build(tmp_path_factory, GOLDEN.parent / "executorch", "wheel", ["dq-run"], *options) / "dq-run"
