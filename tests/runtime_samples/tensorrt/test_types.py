"""The Python program uses TensorRT's API as it is: checked against stubs made from NVIDIA's bindings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.stubs.tensorrt import OUT, VERSIONS

from tests.runtime_samples.tensorrt.programs import PYTHON, ROOT

MISTAKE = "execute_async_v2"


def check(folder: Path, version: str, cache: Path) -> list[str]:
    """Errors that mypy finds in a folder of programs."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--python-version",
            "3.10",
            "--follow-imports=silent",
            f"--cache-dir={cache}",
            str(folder),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MYPYPATH": os.pathsep.join([str(folder), str(ROOT / OUT / version)])},
    )
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.splitlines() if ": error:" in line]


@pytest.mark.skipif(
    not (ROOT / OUT).is_dir(), reason="needs stubs of NVIDIA's bindings: python -m scripts.stubs.tensorrt"
)
@pytest.mark.nvidia
@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_program_for_the_device(version: str, tmp_path: Path) -> None:
    assert check(PYTHON, version, tmp_path / "cache") == []
    wrong = tmp_path / "python"
    wrong.mkdir()
    for path in PYTHON.glob("*.py"):
        (wrong / path.name).write_text(path.read_text().replace("execute_async_v3", MISTAKE))
    assert [line for line in check(wrong, version, tmp_path / "cache") if MISTAKE in line]
