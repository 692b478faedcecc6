"""Homes keep numbers and strides in one piece of memory; a copy to a GPU begins when nothing reads what it overwrites."""

from __future__ import annotations

import gc
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.network.copiers import ALIGNED, Block, CudaCopier, pinned
from dq_toolchain.toolchain.errors import CalibrationError


class Runtime:
    """CUDA's calls that pin memory: which pieces are pinned now."""

    def __init__(self, error: int = 0) -> None:
        self.error, self.held = error, dict[int, int]()

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        assert flags == 0
        self.held[address] = size
        return self.error

    def cudaHostUnregister(self, address: int) -> int:
        del self.held[address]
        return 0


def runtime(monkeypatch: pytest.MonkeyPatch, error: int = 0) -> Runtime:
    made = Runtime(error)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: made)
    return made


TENSORS = (
    torch.randn(5, 3),
    torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    torch.randn(6, 4).t(),
    torch.randn(8, 8)[:, ::2],
    torch.randint(-8, 8, (3, 7), dtype=torch.int8),
    torch.zeros(0, 3),
)


def test_homes_are_one_pinned_piece_that_goes_with_the_last_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = runtime(monkeypatch)
    homes = pinned(TENSORS)
    for tensor, home in zip(TENSORS, homes, strict=True):
        assert torch.equal(home, tensor)
        assert home.dtype == tensor.dtype
        assert home.stride() == tensor.clone().stride()
        assert home.data_ptr() % ALIGNED == 0 or not home.numel()
    ((begin, size),) = cuda.held.items()
    for home in homes[:-1]:  # the last is empty
        assert begin <= home.data_ptr()
        assert home.data_ptr() + home.nbytes <= begin + size
    assert size < sum(home.nbytes for home in homes) + len(homes) * ALIGNED
    last = homes.pop(1)
    del home, homes
    gc.collect()
    assert cuda.held
    assert torch.equal(last, TENSORS[1])
    del last
    gc.collect()
    assert not cuda.held


def test_memory_that_cannot_be_pinned_is_said_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime(monkeypatch, error=2)
    with pytest.raises(
        CalibrationError, match=r"--offload: 0\.00 GiB .* \(cudaHostRegister gives 2\); free memory .*ulimit -l"
    ):
        pinned(TENSORS)


class Queue:
    """A stream that notes what it is told."""

    def __init__(self, told: list[str], name: str) -> None:
        self.told, self.name = told, name

    def wait_stream(self, other: Queue) -> None:
        self.told.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> Mark:
        self.told.append(f"{self.name} marks")
        return Mark(self)

    def wait_event(self, mark: Mark) -> None:
        self.told.append(f"{self.name} waits for the mark of {mark.queue.name}")


class Mark:
    def __init__(self, queue: Queue) -> None:
        self.queue = queue


class Home:
    """A home whose copies are noted."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def to(self, device: torch.device, non_blocking: bool) -> Tensor:
        assert non_blocking
        assert device.type == "cuda"
        self.told.append("copy")
        return torch.zeros(1)


def test_the_order_on_the_streams_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    compute = Queue(told, "compute")

    def inside(queue: Queue) -> AbstractContextManager[None]:
        assert queue.name == "copies"
        return nullcontext()

    for name, stand_in in {
        "Stream": lambda _device: Queue(told, "copies"), "Event": Mark, "stream": inside, "current_stream": lambda _device: compute,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    copier, home = CudaCopier(torch.device("cuda", 0)), Home(told)
    block = Block([(torch.zeros(1), home), (torch.zeros(1), home)])  # type: ignore[list-item]
    copier.start(block)
    assert told == ["copies waits for compute", "copy", "copy", "copies marks"]
    told.clear()
    copier.wait(block)
    assert told == ["compute waits for the mark of copies"]
    kept: Any = weakref.ref(block.copies[0])
    copier.drop(block)
    gc.collect()
    assert kept() is None
    assert block.ready is None
