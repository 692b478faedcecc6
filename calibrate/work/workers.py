"""Several processes on one calibration, each with a part of the samples: what torchrun or `accelerate launch` started.

Every process holds the network and takes the same decisions, on numbers that were summed over all; the first one writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed

from dq_toolchain.toolchain.errors import CalibrationError, RecipeError

LATE = 90.0
"""Seconds within which a file that one machine wrote is seen by the others: NFS looks again after 60 by itself."""


@dataclass(frozen=True)
class Workers:
    """``rank`` of this process among ``count``. Alone, everything below changes nothing."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @classmethod
    def started(cls, use_cuda: bool) -> Workers:
        """The processes of this launch, each on a GPU of its own if there are GPUs; alone without a launcher."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState  # takes a second, and is for launches alone

        state = PartialState(cpu=not use_cuda)
        return cls(state.process_index, state.num_processes, str(state.device))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, items: int) -> slice:
        """This process's part of a number of items, in order."""
        return slice(self.rank * items // self.count, (self.rank + 1) * items // self.count)

    def gather(self, part: Tensor, items: int, dim: int = 0) -> Tensor:
        """All parts along ``dim``, by ``share``; on the device of ``part``, to the bit."""
        if self.count == 1:
            return part
        shape = [*part.shape]
        shape[dim] = items
        whole = torch.zeros(shape, dtype=part.dtype, device=self.device)
        rows = self.share(items)
        whole.narrow(dim, rows.start, rows.stop - rows.start).copy_(part)
        with _together():
            distributed.all_reduce(whole)
        return whole.to(part.device)

    def sum(self, x: Tensor) -> Tensor:
        """Over all processes, on the device of ``x``."""
        return self._reduced(x, distributed.ReduceOp.SUM)

    def largest(self, x: Tensor) -> Tensor:
        """Element by element over all processes."""
        return self._reduced(x, distributed.ReduceOp.MAX)

    def average_(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace each tensor by its mean over all processes; None is left out, alike in all of them."""
        if self.count > 1:
            for tensor in tensors:
                if tensor is not None:
                    with _together():
                        distributed.all_reduce(tensor)
                    tensor.div_(self.count)

    def agreed(self, x: Tensor) -> Tensor:
        """The first process's ``x``, in all of them."""
        return x if self.count == 1 else self.sum(x if self.is_first else torch.zeros_like(x))

    def check_shares(self, setting: str, items: int) -> None:
        """Raises RecipeError: the processes cannot have equal shares."""
        if items % self.count:
            raise RecipeError(
                f"{setting}: {self.count} processes can share multiples of {self.count} only; change it, or start another "
                "number of processes"
            )

    def check_sees(self, file: Path) -> None:
        """Raises RecipeError, in all of them: a process does not see a file that the first one wrote.

        Checkpoints are read by all: where one did not find them, it would compute what the others wait for.
        """
        if self.count == 1:
            return
        until = time.monotonic() + LATE
        self.sum(torch.zeros(1))  # it is written by now
        while not (seen := file.exists()) and time.monotonic() < until:
            time.sleep(0.5)
        missing = self.count - int(self.sum(torch.tensor([float(seen)])))
        if missing:
            raise RecipeError(
                f"{missing} of {self.count} processes do not see {file}, which the first one wrote; choose an output folder that "
                "all machines share and see at the same place (--out)"
            )

    def _reduced(self, x: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
        if self.count == 1:
            return x
        y = x.to(self.device, copy=True)
        with _together():
            distributed.all_reduce(y, operation)
        return y.to(x.device)


@contextmanager
def _together() -> Iterator[None]:
    """What all processes do at once. Raises CalibrationError: one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        raise CalibrationError(
            "another process of this launch ended, and none can go on alone; see what it said, and start all again: the same "
            f"command continues ({' '.join(str(error).split())[:200]})"
        ) from error


ALONE = Workers()
