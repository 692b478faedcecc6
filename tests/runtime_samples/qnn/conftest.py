"""dq-run of the NPU, built once per session against the wheel's library, and a tiny bundle for it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests.backends.qnn.conftest import wide
from tests.runtime_samples.building import SAMPLES, TOGETHER, add_target, build
from tests.shared import once

__all__ = ["wide"]

STAND_IN = Path(__file__).parent / "standin"
HEADERS = "DQ_ONNXRUNTIME_HEADERS"
"""In the environment: a folder with ONNX Runtime's own header, to build with it in the place of the stand-in."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = importlib.util.find_spec("onnxruntime_qnn") is None
    for item in items:
        if item.get_closest_marker("qnn") is not None and missing:
            item.add_marker(pytest.mark.skip(reason="needs Qualcomm's wheel: pip install 'dq-toolchain[qnn]'"))


@pytest.fixture(scope="session")
def dq_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, linked with libonnxruntime.so of the installed wheel."""
    pytest.importorskip("onnxruntime")
    headers = os.environ.get(HEADERS, str(STAND_IN))
    options = ("-DDQ_ONNXRUNTIME=wheel", f"-DDQ_PYTHON={sys.executable}", f"-DDQ_ONNXRUNTIME_HEADERS={headers}")
    fast = ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0", *TOGETHER)  # what executes is in the library
    return build(tmp_path_factory, SAMPLES / "qnn", "qnn-wheel", ["dq-run"], *options, *fast) / "dq-run"


@pytest.fixture(scope="session")
def dq_generate(dq_run: Path) -> Path:
    """The program that draws, built beside it."""
    add_target(dq_run.parent, "dq-generate", "PNG")
    return dq_run.parent / "dq-generate"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two step groups, step vectors, uint16 activations; ``graphs.PythonGraphs`` executes it in Python."""
    pytest.importorskip("onnxruntime")
    graphs = pytest.importorskip("tests.runtime_samples.qnn.graphs")
    return once(tmp_path_factory, "qnn-bundle", lambda folder: graphs.write_bundle(folder / "bundle")) / "bundle"


@pytest.fixture(scope="session")
def qnn_library() -> Path:
    """Qualcomm's plugin in the installed wheel."""
    spec = importlib.util.find_spec("onnxruntime_qnn")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "libonnxruntime_providers_qnn.so"
