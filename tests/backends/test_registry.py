"""Targets are listed and described without their libraries; a missing one is one line that says what to install."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from dq_toolchain import backends
from dq_toolchain.backends import executorch
from dq_toolchain.toolchain.errors import BackendError


def test_names_are_the_folders() -> None:
    assert "executorch" in backends.names()
    assert "base" not in backends.names()
    assert list(backends.names()) == sorted(backends.names())


@pytest.mark.parametrize("name", backends.names())
def test_every_target_offers_the_protocol(name: str) -> None:
    info = backends.describe(name)
    assert info.name == name
    module = backends.load(name)
    assert callable(module.lower)
    assert callable(module.run)


def test_unknown_target_lists_the_known() -> None:
    with pytest.raises(BackendError, match=r"target must be one of .*executorch.*, got 'onnx'"):
        backends.load("onnx")


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(executorch, "version", missing)
    assert backends.describe("executorch").version is None
    with pytest.raises(BackendError, match=r"target 'executorch' needs executorch; install it with: "
                                           r"pip install 'dq-toolchain\[executorch\]'"):
        backends.load("executorch")


def test_describing_imports_no_vendor_library() -> None:
    code = ("import sys; from dq_toolchain import backends; [backends.describe(n) for n in backends.names()]; "
            "print([m for m in sys.modules if m.split('.')[0] in ('executorch', 'coremltools', 'tensorrt')])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lowering_is_quiet() -> None:
    """Importing executorch and its runtime prints nothing of its own, and an error still comes through."""
    code = ("import warnings; from dq_toolchain.toolchain.quiet import quiet_imports; quiet_imports();"
            "from dq_toolchain.backends.executorch import vendor, quiet;"
            "vendor.lowering(); vendor.runtime(); vendor.serialization()\n"
            "with quiet.quiet():\n    import os; os.write(2, b'a foreign line\\n')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["a foreign line"]
    assert done.stdout == ""
