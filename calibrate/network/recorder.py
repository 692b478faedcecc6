"""Work on a GPU that is recorded once and replayed: a thousand small kernels for one launch.

A recording is memory and kernels: a replay runs the same kernels on the same memory. Nothing of Python runs again, so
numbers that Python handed to a kernel stay what they were, and a number that Python reads cannot be had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

Work = Callable[[], None]

WARM_UPS = 3
"""Libraries choose kernels and allocate workspaces in the first runs of an operation: torch's notes ask for three."""


class Recorder(Protocol):
    """Records work in memory of its own, which all its recordings share and which is freed with the last of them."""

    def record(self, works: Sequence[Work]) -> list[Work]:
        """Run the works in order, first to warm up and then to record them. Returns what replays each of them.

        What a work leaves in the last of these runs is the memory that its replays write to; it holds nothing of use
        before the first replay. Memory that is in use between two works of one call is safe only if nothing else of this
        recorder is replayed between them.

        Raises:
            RuntimeError: the work cannot be recorded; the text says why.
        """


class CudaGraphs:
    """Recordings on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, works: Sequence[Work]) -> list[Work]:
        replays: list[Work] = []
        with torch.cuda.device(self.device):
            usual = torch.cuda.current_stream()
            self._stream.wait_stream(usual)
            with torch.cuda.stream(self._stream):
                for work in (*works,) * WARM_UPS:
                    work()
            usual.wait_stream(self._stream)
            for work in works:
                graph = torch.cuda.CUDAGraph()
                # other threads, such as a watchdog of several processes, may go on using CUDA meanwhile
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    work()
                replays.append(graph.replay)
        return replays
