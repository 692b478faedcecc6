"""Tiny bundles as `export` writes them, and what the project's own `run` makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from tests.backends.tensorrt.conftest import Lowered, made


@pytest.fixture(scope="session", params=["static-fp32", "ratio-fp32"])
def lowered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """A graph per step group, and one for all with ranges as an input."""
    return made(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """A graph per step group."""
    return made("static-fp32", tmp_path_factory)


@pytest.fixture(scope="session")
def text_states(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Conditioned by text states in place of labels."""
    return made("cross-attention", tmp_path_factory)


_host: dict[Path, Path] = {}


@pytest.fixture(scope="session")
def host_report(lowered: Lowered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the report that `dq-toolchain run` writes for ``lowered``."""
    if lowered.folder not in _host:
        out = tmp_path_factory.mktemp("host")
        run_bundle(backends.load("tensorrt"), lowered.bundle, lowered.folder, out)
        _host[lowered.folder] = out
    return _host[lowered.folder]
