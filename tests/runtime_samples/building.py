"""The C++ programs, built once per session. With sanitizers the core is compiled once for all that link it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.runtime_samples.tensorrt.cpp import SANITIZE, build_fakes
from tests.shared import once

TOGETHER = ("-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=30")
"""A target's files are compiled as one: in half the time. That each compiles alone is seen where dq-run is built."""
LIBRARIES = {"PNG": "libpng"}
"""What CMake calls them, and people."""
SAMPLES = Path(__file__).parents[2] / "runtime_samples"


def build(folders: pytest.TempPathFactory, source: Path, name: str, targets: Sequence[str], *options: str) -> Path:
    """The build folder."""
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        pytest.skip("needs a C++ compiler")

    def make(folder: Path) -> None:
        for command in (
            ["cmake", "-S", str(source), "-B", str(folder), *options],
            ["cmake", "--build", str(folder), "-j2", "--target", *targets],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"

    return once(folders, name, make)


def fakes_of_nvidia(folders: pytest.TempPathFactory) -> Path:
    """A folder with the headers and libraries of a TensorRT and a CUDA made for the tests, with sanitizers."""
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    return once(folders, "fakes", lambda folder: build_fakes(folder / "root", *SANITIZE)) / "root"


def sanitized_programs(folders: pytest.TempPathFactory) -> Path:
    """dq_run_trt, by its own CMakeLists.txt, and in core/ dq-replay, dq-fuzz, dq-parts and dq-unit-tests, with ASan and UBSan."""
    fakes = fakes_of_nvidia(folders)
    options = (
        f"-DTENSORRT_ROOT={fakes}",
        f"-DCUDA_ROOT={fakes}",
        "-DDQ_SANITIZE=ON",
        "-DCMAKE_CXX_FLAGS=-g0",
        *TOGETHER,
    )
    targets = ("dq_run_trt", "dq-replay", "dq-fuzz", "dq-unit-tests", "dq-parts")
    return build(folders, SAMPLES / "tensorrt" / "cpp", "sanitized", targets, *options)


def add_target(folder: Path, target: str, needs: str) -> None:
    """Build one more program in a build folder, which is there only where CMake found what it ``needs``."""
    cache = (folder / "CMakeCache.txt").read_text()
    if f"{needs}_LIBRARY_RELEASE:FILEPATH={needs}_LIBRARY_RELEASE-NOTFOUND" in cache:
        pytest.skip(f"needs {LIBRARIES[needs]} and its headers, when the programs are configured")
    with (folder / f"{target}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["cmake", "--build", str(folder), "-j2", "--target", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
