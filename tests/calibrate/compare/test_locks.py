"""Claims: one holder at a time, and a dead one does not block."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dq_toolchain.calibrate.compare.locks import alone, claim, held


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A living process that is not ours."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def lock_of(path: Path, pid: int, started: float) -> None:
    path.write_text(json.dumps({"pid": pid, "started": started}))


def test_a_lock_holds_the_pid_and_goes_with_the_block(tmp_path: Path) -> None:
    path = tmp_path / "cells" / "a.lock"
    with claim(path) as ours:
        assert ours
        assert json.loads(path.read_text())["pid"] == os.getpid()
        assert held(path)
        with claim(path) as again:
            assert not again
        assert held(path)
    assert not path.exists()


def test_a_lock_goes_with_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claim(tmp_path / "a.lock"):
        raise ZeroDivisionError
    assert not (tmp_path / "a.lock").exists()


def test_a_living_process_keeps_its_lock_a_dead_one_loses_it(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "a.lock"
    lock_of(path, other.pid, psutil.Process(other.pid).create_time())
    with claim(path) as ours:
        assert not ours
    assert path.exists()
    other.kill()  # not yet waited for: a zombie is dead too
    psutil.wait_procs([psutil.Process(other.pid)], timeout=0.1)
    with claim(path) as ours:
        assert ours
    other.wait()
    assert not path.exists()


def test_another_process_with_the_old_pid_does_not_keep_the_lock(
    tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    lock_of(tmp_path / "a.lock", other.pid, psutil.Process(other.pid).create_time() - 3600)
    with claim(tmp_path / "a.lock") as ours:
        assert ours


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x", "started": 0}', '{"pid": 4}'])
def test_a_damaged_lock_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.lock").write_text(text)
    with claim(tmp_path / "a.lock") as ours:
        assert ours


def test_of_many_that_find_a_dead_lock_one_gets_it(tmp_path: Path) -> None:
    path, start, done = tmp_path / "a.lock", threading.Barrier(8), threading.Barrier(8)
    lock_of(path, 2**22 + 1, 0.0)
    won = []

    def try_once() -> None:
        start.wait()
        with claim(path) as ours:
            won.append(ours)
            done.wait()

    threads = [threading.Thread(target=try_once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_alone_is_one_at_a_time(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def enter() -> None:
        for _ in range(20):
            with alone(tmp_path / "folder" / ".guard"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
