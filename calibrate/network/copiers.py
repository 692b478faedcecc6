"""How the weights of a block get from the host to the device: started early, waited for, dropped.

``Streaming`` decides when; a copier knows how. So the decisions are tested on a CPU, by a copier that counts.
"""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import CalibrationError

ALIGNED = 256
"""Bytes at multiples of which tensors begin, as torch's own allocators have it."""


@dataclass(eq=False)
class Block:
    """Weights that are moved together.

    Attributes:
        weights: tensors that modules hold, each with its home: the host memory that it shows while the block is away.
        copies: on the device, in the order of ``weights``; empty while the block is away.
        ready: what a copier waits for.
    """

    weights: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    copies: list[Tensor] = field(default_factory=list)
    ready: object = None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(home.nbytes for _, home in self.weights)


class Copier(ABC):
    """Moves blocks to one device."""

    @abstractmethod
    def homes(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Copies on the host, to copy from; strides as the tensors have them."""

    @abstractmethod
    def start(self, block: Block) -> None:
        """Begin to fill ``block.copies``; may return before they hold anything."""

    @abstractmethod
    def wait(self, block: Block) -> None:
        """What is computed from now on finds the copies complete."""

    @abstractmethod
    def settle(self) -> None:
        """Wait until no home is being read any more: from here on it may be given back."""

    def drop(self, block: Block) -> None:
        """Give the device's memory back. What still computes with the copies finds them; autograd keeps those that it needs."""
        block.copies, block.ready = [], None


class CudaCopier(Copier):
    """Pinned host memory, copied on a stream of its own while the GPU computes.

    Memory of dropped copies returns to that stream's pool and is taken from there by later copies only, each of which begins
    when all that was launched before its start is done. So nothing is overwritten that is still read, without a wait of the
    host, and no more than two blocks are held however far the host is ahead.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def homes(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """All in one pinned piece. Raises CalibrationError: the host does not let it be pinned."""
        return pinned(tensors)

    def start(self, block: Block) -> None:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            block.copies = [home.to(self.device, non_blocking=True) for _, home in block.weights]
            block.ready = self.stream.record_event()

    def wait(self, block: Block) -> None:
        assert isinstance(block.ready, torch.cuda.Event)
        torch.cuda.current_stream(self.device).wait_event(block.ready)

    def settle(self) -> None:
        self.stream.synchronize()


def pinned(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of the tensors, strides included, in one piece of pinned host memory, which is freed with the last of them.

    The exact size: torch's allocator of pinned memory rounds up to powers of two, which for weights may be twice as much.

    Raises:
        CalibrationError: the host does not let that much be pinned.
    """
    region = _Region(
        -1, max(1, sum(_aligned(tensor.nbytes) for tensor in tensors)), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    whole = torch.frombuffer(region, dtype=torch.uint8)  # which keeps the region
    region.pin(whole.data_ptr())
    found, begin = [], 0
    for tensor in tensors:
        part = whole[begin : begin + tensor.nbytes].view(tensor.dtype)
        home = part.as_strided(tensor.shape, _dense_strides(tensor))
        found.append(home.copy_(tensor.detach()))
        begin += _aligned(tensor.nbytes)
    return found


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _dense_strides(tensor: Tensor) -> tuple[int, ...]:
    """Those that ``tensor.clone()`` has: of the tensor where it leaves no gaps."""
    return torch.empty_like(tensor, device="meta").stride()


class _Region(mmap.mmap):
    """Memory of the host that is pinned until just before it is given back."""

    unpin: Callable[[], int] | None = None

    def pin(self, address: int) -> None:
        """Raises CalibrationError."""
        runtime = torch.cuda.cudart()
        error = int(runtime.cudaHostRegister(address, len(self), 0))
        if error:
            raise CalibrationError(
                f"--offload: {len(self) / 2**30:.2f} GiB of host memory cannot be pinned (cudaHostRegister gives {error}); "
                "free memory of the host, or raise its limit of locked memory (`ulimit -l`)"
            )
        self.unpin = partial(runtime.cudaHostUnregister, address)

    def __del__(self) -> None:
        if self.unpin is not None:
            self.unpin()
