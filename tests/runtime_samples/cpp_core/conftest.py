"""The core's programs with sanitizers, and what a program must say when it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.runtime_samples import damaged
from tests.runtime_samples.building import sanitized_programs

SOURCE = Path(__file__).parents[3] / "runtime_samples" / "cpp_core"
GOLDEN = SOURCE.parent / "golden"
CASES = damaged.recorded()
SAMPLERS = {"samplers/two-steps": ("--steps", "2"), "samplers/eight-unguided": ("--steps", "8", "--guidance", "1")}
"""Golden cases of runs at another step count or guidance, with what chooses it."""
ALL = {**dict.fromkeys(CASES, ()), **SAMPLERS, **damaged.OTHER_VECTORS}
"""Every golden case, with what chooses its sampler."""
STRICT = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
}


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with dq-replay, dq-fuzz and dq-unit-tests, built with ASan and UBSan."""
    return sanitized_programs(tmp_path_factory) / "core"


def run(
    *command: str | Path, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Never raises; what a sanitizer finds is an exit code other than 0 and 2."""
    env = {**os.environ, **STRICT, **environment}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=env, timeout=600)


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
