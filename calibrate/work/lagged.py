"""Numbers of an iteration that are read on the host while the device works on the next one, so that its queue never empties."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import torch
from torch import Tensor

from dq_toolchain.calibrate.work.host_reads import on_purpose

About = TypeVar("About")


class Lagged(Generic[About]):
    """A queue of small tensors on their way to the host, each with what it is about.

    Attributes:
        lag: how many are left on their way; 0 on a CPU, which has no queue: there, what is put comes back at once.
    """

    def __init__(self, device: torch.device, name: str) -> None:
        """``name``: what is read, for ``HostReads``."""
        self.lag, self.name = 0 if device.type == "cpu" else 1, name
        self._on_their_way: deque[tuple[_Sent, About]] = deque()

    def put(self, numbers: Tensor, about: About) -> list[tuple[list[float], About]]:
        """Send numbers (n,) and return what is due: those of the iteration before, on a CPU these."""
        self._on_their_way.append((_Sent(numbers.detach()), about))
        return self._taken(self.lag)

    def rest(self) -> list[tuple[list[float], About]]:
        """All that are left, oldest first; the host waits for them."""
        return self._taken(0)

    def _taken(self, left: int) -> list[tuple[list[float], About]]:
        due = [self._on_their_way.popleft() for _ in range(len(self._on_their_way) - left)]
        return [(sent.arrived(self.name), about) for sent, about in due]


class _Sent:
    """A copy to the host's memory that was queued."""

    def __init__(self, numbers: Tensor) -> None:
        self.is_host = numbers.device.type == "cpu"
        self.copy = numbers.to("cpu", non_blocking=True)
        self.event = torch.cuda.Event() if numbers.device.type == "cuda" else None
        if self.event is not None:
            self.event.record()

    def arrived(self, name: str) -> list[float]:
        if not self.is_host:
            with on_purpose(name):
                if self.event is not None:
                    self.event.synchronize()
        found: list[float] = self.copy.tolist()
        return found
