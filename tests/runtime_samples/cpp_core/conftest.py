"""The core and its programs, built once per session with sanitizers."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "runtime_samples" / "cpp_core"
GOLDEN = SOURCE.parent / "golden"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/replay.safetensors"))
STRICT = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
}


def build(folders: pytest.TempPathFactory, source: Path, name: str, targets: Sequence[str], *options: str) -> Path:
    """The build folder; the processes of pytest-xdist share one, whoever comes second finds it done."""
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        pytest.skip("needs a C++ compiler")
    base = folders.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = root / f"{source.name}_{name}"
    with (root / f"{source.name}_{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            ["cmake", "-S", str(source), "-B", str(folder), *options],
            ["cmake", "--build", str(folder), "-j2", "--target", *targets],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return folder


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with dq-replay, dq-fuzz and dq-unit-tests, built with ASan and UBSan."""
    return build(tmp_path_factory, SOURCE, "sanitized", ["dq-replay", "dq-fuzz", "dq-unit-tests"], "-DDQ_SANITIZE=ON")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Never raises; what a sanitizer finds is an exit code other than 0 and 2."""
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=os.environ | STRICT, timeout=600
    )


def replay(
    folder: Path, case: str, report: Path, *options: str, bundle: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """dq-replay of a golden case, with its own bundle unless another is given."""
    recording = GOLDEN / case / "replay.safetensors"
    return run(
        folder / "dq-replay", recording, "--bundle", bundle or GOLDEN / case / "bundle", "--report", report, *options
    )


def seal_files(bundle: Path) -> None:
    """Make the recorded hashes good after a file was replaced, so that a reader gets to see it."""
    path = bundle / "bundle.json"
    data = json.loads(path.read_text())
    data["files"] = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in data["files"]}
    path.write_text(json.dumps(data))


def assert_refused(done: subprocess.CompletedProcess[str], text: str = "") -> None:
    """Exit code 2, nothing on stdout, one line on stderr."""
    assert done.returncode == 2, (done.returncode, done.stderr[-2000:])
    assert not done.stdout
    assert done.stderr.endswith("\n"), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert text in done.stderr
