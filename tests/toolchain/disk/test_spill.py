"""Tensors on disk are the tensors in memory; their files go with them, whatever ends the process."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dq_toolchain.toolchain.disk import spill as module
from dq_toolchain.toolchain.disk.spill import Spill
from dq_toolchain.toolchain.errors import ToolchainError
from tests.pages import file_of

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
WRITER = """
import sys, time
from pathlib import Path
import torch
from dq_toolchain.toolchain.disk.spill import SMALLEST, Spill
spill = Spill(Path(sys.argv[1]))
kept = spill.keep(torch.ones(SMALLEST))
def stop(_piece):
    print("writing", flush=True)
    time.sleep(60)
spill.keep(torch.ones(SMALLEST), check=stop)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors are worth a file, which is written in several pieces."""
    monkeypatch.setattr(module, "SMALLEST", 16)
    monkeypatch.setattr(module, "PIECE", 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8])
def test_values_and_shape_are_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    x = (20 * torch.randn(5, 3, 4)).to(dtype)
    kept, widened = Spill(tmp_path).keep(x), Spill(tmp_path).keep(x, torch.float32)
    assert kept.dtype == dtype
    assert torch.equal(kept, x)
    assert torch.equal(widened, x.float())
    turned = Spill(tmp_path).keep(x.transpose(0, 1))
    assert turned.is_contiguous()
    assert torch.equal(turned, x.transpose(0, 1))
    kept.zero_()  # what is written to it is its own
    assert torch.equal(widened, x.float())


@LINUX
def test_only_large_tensors_have_a_file_and_none_has_a_name(tmp_path: Path) -> None:
    spill, folder = Spill(tmp_path / "made"), tmp_path / "made"
    large, little = spill.keep(torch.ones(16)), spill.keep(torch.ones(15))
    name = file_of(large)
    assert name is not None
    assert name.startswith(str(folder))
    assert name.endswith("(deleted)")
    assert file_of(little) is None
    assert list(folder.iterdir()) == []
    assert torch.equal(large[:15], little)


@LINUX
def test_parameters_of_a_network_are_put_on_disk_less_those_named(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).requires_grad_(False)
    turned = nn.Linear(8, 4).requires_grad_(False)
    turned.weight = nn.Parameter(torch.randn(8, 4).T, requires_grad=False)
    network.add_module("turned", turned)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Spill(tmp_path).keep_parameters(network, but=["0.weight"])
    files = {name: file_of(value) is not None for name, value in network.named_parameters() if name.endswith("weight")}
    assert files == {"0.weight": False, "1.weight": True, "turned.weight": False}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_killed_process_leaves_at_most_what_the_next_removes(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 1  # the one before has no name any more
        process.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 1
    Spill(tmp_path).keep(torch.ones(16))
    assert list(tmp_path.iterdir()) == []


def test_what_a_check_raises_leaves_nothing(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def check(piece: torch.Tensor) -> None:
        seen.append(piece.clone())
        if len(seen) == 3:
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        Spill(tmp_path).keep(torch.arange(50), torch.float32, check)
    assert torch.equal(torch.cat(seen), torch.arange(21.0))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=2 * 10**9))
    Spill(tmp_path).require(2 * 10**9)
    needed = r"3\.5 GB are needed, 2\.0 GB are free; free some, choose a folder .*\(--out\), or leave --offload out"
    with pytest.raises(ToolchainError, match=needed):
        Spill(tmp_path).require(3_500_000_000)
    (tmp_path / "file").touch()
    for wrong in (lambda spill: spill.require(1), lambda spill: spill.keep(torch.ones(16))):
        with pytest.raises(ToolchainError, match=r"weights cannot be put on disk in .*file: .*; free some"):
            wrong(Spill(tmp_path / "file"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's device that is always full")
def test_a_disk_that_fills_up_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "temporary_beside", lambda _path: tmp_path / "full")
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(ToolchainError, match=r"weights cannot be put on disk in .*No space left on device"):
        Spill(tmp_path).keep(torch.ones(16))
    assert list(tmp_path.iterdir()) == []
