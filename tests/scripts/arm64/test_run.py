"""A bundle on emulated Arm: the protocol with this machine's own ExecuTorch, the setup, and once the real thing."""

from __future__ import annotations

import io
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.toolchain.checks import overall
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.report import load_report
from dq_toolchain.toolchain.verdict.judge import validate
from scripts.arm64 import fetch as arm64_fetch
from scripts.arm64 import process as arm64_process
from scripts.arm64 import run as arm64
from scripts.arm64 import setup as arm64_setup
from scripts.arm64 import worker as arm64_worker
from tests.backends.executorch.conftest import Lowered

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def bundle(small: Lowered) -> Lowered:
    """Sentinel form, 2 step groups, with guidance."""
    return small


def _program(bundle: Lowered) -> Path:
    return bundle[4] / bundle[3].program


def _inputs(bundle: Lowered, group: int) -> list[torch.Tensor]:
    reference, ranges = bundle[2], bundle[3].ranges(bundle[4])
    assert ranges is not None
    labels = reference.conditioning.cond["class_labels"][:1]
    return [reference.start[:1].contiguous(), torch.tensor([400.0]), labels, ranges[group : group + 1]]


def _native(program: Path, limit_s: float = 120) -> arm64_process.Worker:
    """The worker under the Python that runs the tests: all but the emulation."""
    return arm64_process.Worker([sys.executable], os.environ, program, limit_s=limit_s)


@pytest.fixture(scope="module")
def worker(small: Lowered) -> Iterator[arm64_process.Worker]:
    with _native(_program(small)) as started:
        yield started


def _line(error: pytest.ExceptionInfo[BackendError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_outputs_are_those_of_the_runtime_in_this_process(bundle: Lowered, worker: arm64_process.Worker) -> None:
    device = Device(_program(bundle), ["forward"])
    outputs = [worker("forward", _inputs(bundle, group)) for group in (0, 1)]
    for group in (0, 1):
        assert torch.equal(outputs[group], device("forward", _inputs(bundle, group)))
    assert not torch.equal(*outputs)


def test_an_error_of_the_runtime_is_an_answer(bundle: Lowered, worker: arm64_process.Worker) -> None:
    with pytest.raises(BackendError, match="ExecuTorch in the worker") as error:
        worker("backward", _inputs(bundle, 0))
    assert "backward" in _line(error)
    assert worker("forward", _inputs(bundle, 0)).shape == bundle[2].start[:1].shape


def test_a_program_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.pte").write_bytes(b"no program" * 100)
    with pytest.raises(BackendError, match="worker") as error:
        _native(tmp_path / "model.pte")
    _line(error)


def test_a_worker_that_was_killed_is_one_line(bundle: Lowered) -> None:
    with _native(_program(bundle)) as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(BackendError, match="ended with signal 9") as error:
            worker("forward", _inputs(bundle, 0))
    _line(error)


@pytest.mark.parametrize(("code", "said"), [
    ("raise SystemExit('boom')", "exit status 1: boom"),
    ("print('x' * 100)", "cannot be read"),
    ("import os; os.write(1, b'\\x02' + bytes(7) + b'{}')", "cannot be read"),
    ("import os; os.write(1, b'\\x09')", "it said nothing"),
    ("import time; time.sleep(60)", "no answer for 2 s"),
])  # fmt: skip
def test_what_is_no_worker_is_one_line(code: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError) as error:
        arm64_process.Worker([sys.executable, "-c", code], os.environ, tmp_path, limit_s=2)
    assert said in _line(error)


def test_a_worker_that_does_not_listen_is_one_line(tmp_path: Path) -> None:
    """More bytes than a pipe holds: already writing would wait forever."""
    frame = io.BytesIO()
    arm64_worker.write_frame(frame, {"machine": "none", "executorch": "0"})
    code = f"import os, time; os.write(1, {frame.getvalue()!r}); time.sleep(60)"
    with (
        arm64_process.Worker([sys.executable, "-c", code], os.environ, tmp_path, limit_s=3) as worker,
        pytest.raises(BackendError, match="no answer for 3 s") as error,
    ):
        worker("forward", [torch.zeros(1 << 20)])
    _line(error)


def test_no_emulator_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot start") as error:
        arm64_process.Worker([str(tmp_path / "qemu")], {}, tmp_path)
    _line(error)


def test_frames_refuse_other_dtypes() -> None:
    with pytest.raises(ValueError, match="float32 or int64, got float16"):
        arm64_worker.write_frame(io.BytesIO(), {}, [torch.zeros(1, dtype=torch.float16)])


class _Native(arm64_setup.Emulator):
    def python(self, cpu: str) -> list[str]:
        return [sys.executable]

    def environment(self) -> dict[str, str]:
        return dict(os.environ)


NATIVE = _Native(Path(), "10.0", Path(), Path(), Path())


def test_report_says_emulated_and_gives_no_times(
    bundle: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arm64, "ISA", platform.machine())
    path = arm64.run(bundle[4], tmp_path, NATIVE, seeds=2)
    data = load_report(path).data
    assert data["emulated"] is True
    assert data["load_ms"] is None
    assert set(data["step_ms"]) == {None}
    assert data["compute_unit"] == "XNNPACK CPU, emulated Cortex-A76 (QEMU 10.0)"
    assert data["runtime"]["version"].endswith(f", {platform.machine()}")
    assert validate(path).conformance_passed


def test_a_worker_that_is_not_on_arm_is_refused(
    bundle: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arm64, "ISA", "another")
    with pytest.raises(BackendError, match="not another"):
        arm64.run(bundle[4], tmp_path, NATIVE)
    assert not list(tmp_path.iterdir())


def _parts(monkeypatch: pytest.MonkeyPatch, fetched: list[str], failing: str = "") -> None:
    """Replace every download by a note of it."""
    for name in ("fetch_qemu", "fetch_root", "fetch_wheels", "fetch_libraries"):

        def fetch(out: Path, *_: Path, name: str = name) -> None:
            fetched.append(name)
            if name == failing:
                raise BackendError("no network")
            (out / "file").touch()

        monkeypatch.setattr(arm64_fetch, name, fetch)


def test_setup_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm64_setup, "_find_qemu", lambda folder: (folder / "qemu", "10.0"))
    fetched: list[str] = []
    _parts(monkeypatch, fetched, failing="fetch_wheels")
    with pytest.raises(BackendError, match="no network"):
        arm64_setup.set_up(tmp_path, lambda line: None)
    assert arm64_setup.ready(tmp_path) is None
    assert fetched == ["fetch_root", "fetch_wheels"]
    _parts(monkeypatch, fetched)
    said: list[str] = []
    assert arm64_setup.set_up(tmp_path, said.append) == arm64_setup.ready(tmp_path)
    assert fetched[2:] == ["fetch_wheels", "fetch_libraries"]
    assert len(said) == 2
    assert not list(tmp_path.glob("*.partial"))


def test_what_the_setup_lacks_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert arm64.main(["--setup-only", "--folder", str(tmp_path / "a")]) == 2
    assert "needs apt-get" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    assert arm64.main(["--setup-only", "--folder", str(tmp_path / "b")]) == 2
    assert "still needs 6.0 GB" in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_bundle_is_said_before_the_setup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert arm64.main(["--bundle", str(tmp_path / "none"), "--folder", str(tmp_path / "folder")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "folder").exists()


def test_an_old_qemu_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qemu-aarch64"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for said, taken in (("7.2.19", False), ("10.0.13", True)):
        program.write_text(f"#!/bin/sh\necho qemu-aarch64 version {said}\n")
        program.chmod(0o755)
        found = arm64_setup._find_qemu(tmp_path / "nothing")
        assert (found == (program, said)) is taken


@pytest.mark.slow
def test_emulated_arm_conforms(bundle: Lowered, tmp_path: Path) -> None:
    emulator = arm64_setup.ready(REPOSITORY / arm64.FOLDER)
    if emulator is None:
        pytest.skip("not set up; run `python -m scripts.arm64.run --setup-only`")
    path = arm64.run(bundle[4], tmp_path, emulator, seeds=2)
    assert load_report(path).data["runtime"]["version"].endswith(", aarch64")
    verdict = validate(path)
    assert overall(verdict.conformance) != "fail", verdict.conformance  # two seeds decide nothing
