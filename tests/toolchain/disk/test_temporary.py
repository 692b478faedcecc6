"""What a killed process left is removed by the next one; what lives, what is another machine's, what is not ours stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dq_toolchain.toolchain.disk import processes
from dq_toolchain.toolchain.disk.processes import Process, alive, place, this_process
from dq_toolchain.toolchain.disk.temporary import FORGOTTEN, sweep, temporary_beside

NOBODY = 2**22 + 1
"""Above the largest pid that Linux gives."""
WRITER = """
import sys, time
from pathlib import Path
from dq_toolchain.toolchain.disk.temporary import temporary_beside
path = temporary_beside(Path(sys.argv[1]))
path.write_bytes(b"half")
print(path, flush=True)
time.sleep(60)
"""


def name(pid: int, start: int, where: str) -> str:
    return f".weights.safetensors.{pid}-{start}-{where}.tmp"


def test_a_killed_writer_leaves_a_file_until_the_next_looks(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        sweep(tmp_path)
        assert left.read_bytes() == b"half"  # it lives
        process.send_signal(signal.SIGKILL)
    assert left.exists()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_are_of_one_process_and_one_target(tmp_path: Path) -> None:
    first, second = temporary_beside(tmp_path / "a"), temporary_beside(tmp_path / "b")
    assert first != second
    assert first.parent == second.parent == tmp_path
    first.touch()
    sweep(tmp_path)
    assert first.exists()


@pytest.mark.parametrize(
    ("kind", "goes"),
    [
        ("dead", True),
        ("pid given out again", True),
        ("another machine, lately", False),
        ("another machine, forgotten", True),
        ("earlier version, dead", True),
        ("earlier version, pid given out again", True),
        ("earlier version, living", False),
        ("another program's", False),
        ("a file called so", False),
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_what_is_swept(kind: str, goes: bool, folder: bool, tmp_path: Path) -> None:
    me, elsewhere = this_process(), "0123abcd"
    assert place() != elsewhere
    path = (
        tmp_path
        / {
            "dead": name(NOBODY, me.start, place()),
            "pid given out again": name(me.pid, me.start - 3600, place()),
            "another machine, lately": name(NOBODY, me.start, elsewhere),
            "another machine, forgotten": name(NOBODY, me.start, elsewhere),
            "earlier version, dead": f".weights.safetensors.{NOBODY}.tmp",
            "earlier version, pid given out again": f".executorch.{me.pid}.tmp",
            "earlier version, living": f".executorch.{me.pid}.tmp",
            "another program's": f".cache.{NOBODY}.tmp",
            "a file called so": f"weights.{NOBODY}-{me.start}-{place()}.tmp",
        }[kind]
    )
    inside = path / "inside" if folder else path
    inside.parent.mkdir(exist_ok=True)
    inside.write_bytes(b"x")
    age = FORGOTTEN + 60 if kind.endswith(("forgotten", "given out again")) else 0
    if kind == "earlier version, pid given out again":
        age += time.time() - psutil.Process().create_time()
    for each in {inside, path}:
        os.utime(each, (time.time() - age,) * 2)
    sweep(tmp_path)
    assert path.exists() != goes


def test_links_and_fifos_called_like_ours_stay(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    link = tmp_path / name(NOBODY, 1, place())
    link.symlink_to(tmp_path / "kept")
    fifo = tmp_path / name(NOBODY, 2, place())
    os.mkfifo(fifo)
    sweep(tmp_path)
    assert link.is_symlink()
    assert fifo.exists()
    assert (tmp_path / "kept").is_dir()


def test_a_process_is_more_than_its_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    me = this_process()
    assert me.is_gone is False
    assert Process(me.pid, me.start - 3600, me.place).is_gone is True
    assert Process(NOBODY, me.start, me.place).is_gone is True
    assert Process(NOBODY, me.start, "elsewhere").is_gone is None
    assert not alive(10**15, 0.0)
    monkeypatch.setattr(processes.socket, "gethostname", lambda: "another")  # type: ignore[attr-defined]
    place.cache_clear()
    assert place() != me.place
    place.cache_clear()
