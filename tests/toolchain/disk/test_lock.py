"""One job per folder; the second learns who the first is; a dead one blocks nobody."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.disk import lock
from dq_toolchain.toolchain.disk.lock import NAME, locked
from dq_toolchain.toolchain.errors import ToolchainError

HOLDER = """
import sys, time
from pathlib import Path
from dq_toolchain.toolchain.disk.lock import locked
with locked(Path(sys.argv[1]), "calibrate"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds ``out``."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_lock_leaves_no_trace(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b", "export"):
        assert (tmp_path / "a" / "b" / NAME).is_file()
    assert list(tmp_path.iterdir()) == []

    def fail() -> None:
        with locked(tmp_path / "a", "export"):
            (tmp_path / "a" / "made").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["made"]


def test_the_second_is_told_who_the_first_is_until_it_is_dead(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    out = tmp_path / "out"
    words = rf"out is in use: process {holder.pid} on .+ has been at 'calibrate' there since 20\d\d-.*; wait .*--out"
    with pytest.raises(ToolchainError, match=words), locked(out, "run"):
        pytest.fail("two at once")
    with locked(tmp_path / "another", "run"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(out, "run"):
        pass


@pytest.mark.parametrize("command", [["calibrate", "--model", "model"], ["export"], ["run"]])
def test_every_command_that_writes_there_is_refused(
    command: list[str], box: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(box / "dq-out", "calibrate"):
        assert run_command(command) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: dq-out is in use: process {os.getpid()} ")
    assert err.count("\n") == 1


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    inside, most, done, start = [0], [0], list[bool](), threading.Barrier(8)

    def enter() -> None:
        start.wait()
        for _ in range(20):
            try:
                with locked(tmp_path, "x"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
                    done.append(True)
            except ToolchainError:
                done.append(False)

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert len(done) == 160
    assert any(done)


@pytest.mark.parametrize(
    "words", [b"", b"[", b'{"pid": "x"}', b'{"pid": 1, "host": "\x1b[2J", "job": "j", "since": "s"}']
)
def test_a_holder_whose_words_are_damaged_is_still_a_holder(words: bytes, tmp_path: Path) -> None:
    with locked(tmp_path, "x"):
        (tmp_path / NAME).write_bytes(words)
        with pytest.raises(ToolchainError, match=r"is in use: [ -~]*$"), locked(tmp_path, "y"):
            pytest.fail("two at once")


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "far").write_text("kept")
    (tmp_path / NAME).symlink_to(tmp_path / "far")
    with pytest.raises(ToolchainError, match="cannot write"), locked(tmp_path, "x"):
        pytest.fail("followed")
    assert (tmp_path / "far").read_text() == "kept"


def test_where_there_are_no_locks_the_job_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)  # type: ignore[attr-defined]
    said: list[str] = []
    with locked(tmp_path, "x", said.append):
        pass
    assert len(said) == 1
    assert "cannot be locked" in said[0]
