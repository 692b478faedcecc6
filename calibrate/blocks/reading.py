"""Rows of records brought to the device: those of the next batch are read while the present one is computed.

On a CPU nothing is read ahead, there rows are a gather away. To a GPU they go by a thread, which gathers them into pinned
memory (from disk or from the host's), and by a stream of its own, so that neither the host nor the GPU waits for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from dq_toolchain.calibrate.blocks.records import rows_of

Key = tuple[str, object]
Rows = Mapping[Key, Tensor]
"""Records, or some rows of each: tensors of any shape with the rows as first axis, by key."""


class Stage(ABC):
    """Reads rows in a thread of the reader's."""

    @abstractmethod
    def read(self, records: Rows, index: Tensor) -> Callable[[], Rows]:
        """Rows (B,) int64 of every record, on their way to the device. What is returned gives them to the thread that computes:
        from then on they are complete for it."""


class Reader:
    """Rows of the same records, batch after batch."""

    def __init__(self, records: Rows, device: torch.device, stage: Stage | None = None) -> None:
        """``stage``: what reads ahead those that are on the host; None reads nothing ahead."""
        self.records, self.device, self.stage = records, device, stage
        self._ahead = {} if stage is None else {key: x for key, x in records.items() if x.device.type == "cpu"}
        self._thread = ThreadPoolExecutor(1, "rows") if self._ahead else None
        self._expected: tuple[Tensor, Future[Callable[[], Rows]]] | None = None

    def expect(self, index: Tensor) -> None:
        """The rows (B,) that a later ``read`` asks for."""
        if self._thread is not None:
            self._expected = index, self._begin(self._thread, index)

    def read(self, index: Tensor) -> Rows:
        """Rows (B,) of every record, on the device."""
        rows = {key: rows_of(x, index, self.device) for key, x in self.records.items() if key not in self._ahead}
        if self._thread is None:
            return rows
        if self._expected is not None and torch.equal(self._expected[0], index):
            (_, coming), self._expected = self._expected, None
        else:
            coming = self._begin(self._thread, index)
        return {**rows, **coming.result()()}

    def _begin(self, thread: ThreadPoolExecutor, index: Tensor) -> Future[Callable[[], Rows]]:
        assert self.stage is not None
        return thread.submit(self.stage.read, self._ahead, index)


class PinnedStage(Stage):
    """Two sets of pinned buffers, one being filled while the other is copied to a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.compute = torch.cuda.current_stream(device)
        self._sets: list[dict[Key, Tensor]] = [{}, {}]
        self._copied: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def read(self, records: Rows, index: Tensor) -> Callable[[], Rows]:
        buffers, before = self._sets[self._turn], self._copied[self._turn]
        if before is not None:
            before.synchronize()
        rows: dict[Key, Tensor] = {}
        for key, record in records.items():
            staged = self._buffer(buffers, key, record, len(index))
            torch.index_select(record, 0, index, out=staged)
            with torch.cuda.stream(self.stream):
                rows[key] = staged.to(self.device, non_blocking=True)
                rows[key].record_stream(self.compute)
        copied = self.stream.record_event()
        self._copied[self._turn], self._turn = copied, 1 - self._turn

        def ready() -> Rows:
            self.compute.wait_event(copied)
            return rows

        return ready

    @staticmethod
    def _buffer(buffers: dict[Key, Tensor], key: Key, record: Tensor, count: int) -> Tensor:
        """Pinned room for ``count`` rows of the record."""
        if key not in buffers or len(buffers[key]) < count:
            buffers[key] = torch.empty((count, *record.shape[1:]), dtype=record.dtype, pin_memory=True)
        return buffers[key][:count]


def stage_for(device: torch.device) -> Stage | None:
    """The device's; None on a CPU, and on one without streams."""
    return PinnedStage(device) if device.type == "cuda" else None
