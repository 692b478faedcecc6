"""A copier of blocks from the host to the host that counts, and says when a block computes that was not brought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from dq_toolchain.calibrate.network.copiers import Block, Copier
from dq_toolchain.calibrate.network.streaming import Streaming

HOST = torch.device("cpu")


class CountingCopier(Copier):
    """Attributes:
    started: how often each block was. late: visits of blocks whose copy was not begun before.
    most: blocks on the device at one time, at the most. bytes: copied. made: all homes.
    fails: no more blocks find room.
    hidden: types whose homes show NaN, or 77, so that whatever computes with a block that was not brought gives something else.
    """

    def __init__(self, hidden: Collection[torch.dtype]) -> None:
        self.hidden, self.started, self.late, self.most, self.bytes = hidden, Counter[Block](), 0, 0, 0
        self.resident: set[Block] = set()
        self.fails, self.made = False, list[Tensor]()
        self._numbers: dict[int, Tensor] = {}

    def homes(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        made = []
        for tensor in tensors:
            numbers = tensor.detach().clone()
            home = torch.full_like(numbers, torch.nan if numbers.is_floating_point() else 77)
            made.append(home if numbers.dtype in self.hidden else numbers)
            self._numbers[made[-1].data_ptr()] = numbers
        self.made += made
        return made

    def show(self) -> None:
        """Homes hold their numbers: streaming has ended, and networks are looked at."""
        for home in self.made:
            home.copy_(self._numbers[home.data_ptr()])

    def start(self, block: Block) -> None:
        if self.fails:
            raise MemoryError("no room for a block")
        assert block not in self.resident
        assert not block.copies
        block.copies = [self._numbers[home.data_ptr()].clone() for _, home in block.weights]
        self.resident.add(block)
        self.started[block] += 1
        self.bytes += block.size
        self.most = max(self.most, len(self.resident))

    def wait(self, block: Block) -> None:
        assert block in self.resident

    def settle(self) -> None:
        pass

    def drop(self, block: Block) -> None:
        super().drop(block)
        self.resident.discard(block)


class WatchedStreaming(Streaming):
    copier: CountingCopier

    def visit(self, block: Block) -> None:
        self.copier.late += block not in self.copier.resident
        super().visit(block)


def streaming(hidden: Collection[torch.dtype] = ()) -> tuple[Streaming, CountingCopier]:
    """On the CPU, with what it counts."""
    copier = CountingCopier(hidden)
    return WatchedStreaming(HOST, copier), copier
