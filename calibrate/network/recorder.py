"""Work on a GPU that is recorded once and replayed: a thousand small kernels for one launch.

A recording is memory and kernels: a replay runs the same kernels on the same memory. Nothing of Python runs again, so
numbers that Python handed to a kernel stay what they were, and a number that Python reads cannot be had.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

Work = Callable[[], None]

WARM_UPS = 2
"""In the first run on a stream, libraries choose kernels and get workspaces, which cannot be recorded; the second proves that
the first was enough."""


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
        with torch.cuda.device(self.device), _back_to_the_usual_stream(), _no_collection():
            usual = torch.cuda.current_stream()
            self._stream.wait_stream(usual)
            with torch.cuda.stream(self._stream):
                for work in (*works,) * WARM_UPS:
                    work()
            usual.wait_stream(self._stream)
            return [self._recorded(work) for work in works]

    def _recorded(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        # other threads, such as the watchdog of several processes, may go on using CUDA meanwhile
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        replay: Work = graph.replay
        return replay


@contextmanager
def _back_to_the_usual_stream() -> Iterator[None]:
    """A recording that fails may leave its own stream as the current one."""
    usual = torch.cuda.current_stream()
    try:
        yield
    finally:
        torch.cuda.set_stream(usual)


@contextmanager
def _no_collection() -> Iterator[None]:
    """What Python's collector frees while CUDA records, such as another recording, would end this one."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
