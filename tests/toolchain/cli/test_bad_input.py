"""Everything a user can get wrong is one line of error, exit code 2, and nothing half-written."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from dq_toolchain.toolchain.cli.entry import run_command
from tests.toolchain.mistakes import MISTAKES
from tests.toolchain.spoil import QUICK

SMALL = "[calibrate]\nsettling = 0\ngroup_iterations = 0\n[reference]\nseeds = 2\n"


def listing(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(name: str, box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "no GPU" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    prepare, message = MISTAKES[name]
    arguments = prepare(box)
    before = listing(box)
    code = run_command(arguments)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert len(err) < 1000
    assert listing(box) == before
    assert re.search(message, err), err


@pytest.mark.parametrize("file", ["rollouts-", "ranges-", "weights.safetensors", "reference.safetensors"])
def test_a_full_disk_is_one_line_and_leaves_no_half_written_file(
    file: str, box: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Any = safetensors.torch.save_file

    def full(tensors: Any, path: Path, **keywords: Any) -> None:
        if file in Path(path).name:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, **keywords)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    (box / "small.toml").write_text(SMALL)
    arguments = ["calibrate", "--model", "model", "-r", "small.toml", *QUICK, "--out", "new"]
    assert run_command(arguments) == 2
    note, minutes, err = capsys.readouterr().err.splitlines()
    assert "quick takes about" in minutes
    assert note.startswith("note: [reference] seeds is 2")
    assert err.startswith("error: cannot write new/calibration")
    assert re.search(rf"/{file}\S*: No space left on device; choose a folder with space", err)
    assert not list(box.rglob("*.tmp"))
    assert not (box / "new" / "calibration" / "calibration.json").exists()
    monkeypatch.setattr(safetensors.torch, "save_file", real)
    assert run_command(arguments) == 0
    assert not (box / "new" / "calibration.work").exists()


def test_the_real_command_prints_one_line_and_no_traceback(box: Path) -> None:
    """Not even what optional libraries say while they are imported."""
    (box / "model" / "dq.toml").unlink()
    arguments = [
        sys.executable,
        "-c",
        "from dq_toolchain.toolchain.cli.entry import main; main()",
        "calibrate",
        "--model",
        "model",
        "--guidance",
        "2",
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: guidance needs [conditioning] null_label")
    assert done.stderr.count("\n") == 1
