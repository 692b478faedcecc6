"""Targets are listed and described without their libraries; a missing one is one line that says what to install."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from dq_toolchain import backends
from dq_toolchain.backends import base
from dq_toolchain.toolchain.errors import BackendError


def test_names_are_the_folders() -> None:
    assert "executorch" in backends.names()
    assert not {"base", "sampling"} & set(backends.names())
    assert list(backends.names()) == sorted(backends.names())


@pytest.mark.parametrize("name", backends.names())
def test_every_target_offers_the_protocol(name: str) -> None:
    info = backends.describe(name)
    assert info.name == name
    module = backends.load(name)
    assert callable(module.lower)
    assert callable(module.open)
    assert callable(module.methods)
    assert backends.settings(name)().model_fields_set == set()


def test_unknown_target_lists_the_known() -> None:
    with pytest.raises(BackendError, match=r"target must be one of .*executorch.*, got 'onnx'"):
        backends.load("onnx")


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(base, "version", missing)
    assert backends.describe("executorch").version is None
    with pytest.raises(
        BackendError,
        match=r"target 'executorch' needs executorch; install it with: "
        r"pip install 'dq-toolchain\[executorch\]'",
    ):
        backends.load("executorch")


FRESH_PROCESS = """
import os, sys
from dq_toolchain.backends.common import quiet
from dq_toolchain.backends.executorch import vendor
vendor.lowering(), vendor.runtime(), vendor.serialization()
with quiet.quiet(vendor.NOISE):
    os.write(2, b"a foreign line\\n")
"""
DESCRIBING = """
import sys
from dq_toolchain import backends
assert backends.names() and [backends.describe(name) for name in backends.names()]
vendors = ("executorch", "coremltools", "coreai", "coreai_torch", "onnx", "onnxruntime", "onnxruntime_qnn", "tensorrt")
print([name for name in sys.modules if name.split(".")[0] in vendors])
"""


def test_describing_imports_no_vendor_library() -> None:
    done = subprocess.run([sys.executable, "-c", DESCRIBING], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_vendor_imports_are_quiet() -> None:
    """executorch, its runtime and torchao print nothing of their own; what is not known as noise comes through."""
    done = subprocess.run([sys.executable, "-c", FRESH_PROCESS], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["a foreign line"]
    assert done.stdout == ""
