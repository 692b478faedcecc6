"""The Python program for Jetson as tests start it, and what its report must equal."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.runtime_samples import damaged

ROOT = Path(__file__).parents[3]
JETSON = ROOT / "runtime_samples" / "tensorrt"
PYTHON = JETSON / "python"
GOLDEN = ROOT / "runtime_samples" / "golden"
SCHEMA = ROOT / "toolchain" / "formats" / "schemas" / "report.schema.json"
CASES = damaged.recorded()
TOLERANCE = 1e-6


def dq_run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own, which sees nothing of this project."""
    return subprocess.run(
        [sys.executable, str(PYTHON / "dq_run.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=PYTHON.anchor,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the program, imported here; forgotten after the test, for its name is a common one."""
    for path in PYTHON.glob("*.py"):
        if path.stem not in sys.modules:
            monkeypatch.setitem(sys.modules, path.stem, ModuleType(path.stem))
            monkeypatch.delitem(sys.modules, path.stem)
    monkeypatch.syspath_prepend(str(PYTHON))
    found = importlib.import_module(name)
    assert Path(str(found.__file__)).parent == PYTHON, "another module of that name was imported before"
    return found


def assert_refused(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    """Exit code 2 and one line that contains ``texts``."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for text in texts:
        assert text in done.stderr


def expected_counts(method_of_step: list[str], guided: bool, seeds: int, reload: bool) -> tuple[int, int, int]:
    """Loads, captures and launches of a whole run with CUDA graphs.

    An engine's first execution is plain; where all stay it is the warm-up, and the capture follows at once. One at a time:
    every visit of a step group loads, and its second execution, if there is one, captures.
    """
    methods = list(dict.fromkeys(method_of_step))
    executions = methods + seeds * 2 * [name for name in method_of_step for _ in range(1 + guided)]
    if not reload:
        return len(methods), len(methods), len(executions) - len(methods)
    visits = [len(list(visit)) for _, visit in itertools.groupby(executions)]
    return len(visits), sum(count > 1 for count in visits), sum(count - 1 for count in visits)


def read_report(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """report.json, valid by its schema, and the tensors beside it."""
    data = json.loads((folder / "report.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)
    return data, load_file(folder / "report.safetensors")


def assert_golden(folder: Path, case: str) -> None:
    """All figures and latents of a report are those of the golden one, to 1e-6 relative; null where it has null."""
    (got, tensors), (want, expected) = read_report(folder), read_report(GOLDEN / case / "expected")
    for row, wanted in zip(got["per_step"], want["per_step"], strict=True):
        assert list(row) == list(wanted)
        assert_close(list(row.values()), list(wanted.values()))
    assert_close(got["final"]["psnr"], want["final"]["psnr"])
    assert got["bundle_sha256"] == want["bundle_sha256"]
    assert got["target"] == want["target"]
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        assert tensors[name].dtype == np.float32
        np.testing.assert_allclose(tensors[name], tensor, rtol=TOLERANCE, atol=TOLERANCE)


def assert_close(got: list[float | None], want: list[float | None]) -> None:
    """Numbers to 1e-6 relative, None for None."""
    assert [value is None for value in got] == [value is None for value in want]
    np.testing.assert_allclose(
        [v for v in got if v is not None], [v for v in want if v is not None], rtol=TOLERANCE, atol=0
    )
