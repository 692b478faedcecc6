"""A CUDA runtime in host memory that is as lazy as the real one may be, and stricter: misuse is an AssertionError.

Functions have the names and arguments of libcudart, as ctypes passes them. What is queued runs when the stream is waited for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

Work = Callable[[], None]
TO_DEVICE, TO_HOST = 1, 2
INVALID_VALUE = 1


class FakeCuda:
    """Memory, one stream and graphs.

    Attributes:
        events: allocations, frees, captures and launches, in order.
        limit: bytes that may be allocated at a time; more is an error of CUDA.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self.memory: dict[int, Any] = {}
        self.queue: list[Work] = []
        self.recorded: list[Work] | None = None
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.streams: set[int] = set()
        self.events: list[str] = []
        self.limit, self.handle = limit, 100
        self.on_capture: int = 0

    # ------------------------------------------------------------------ for the fake TensorRT and for tests

    def check(self, address: int, size: int) -> None:
        """``size`` bytes at ``address`` are allocated."""
        inside = any(start <= address and address + size <= start + len(block) for start, block in self.memory.items())
        assert inside, f"{size} bytes at {address:#x} were freed or never allocated"

    def submit(self, stream: int, work: Work) -> None:
        """Queue work, or record it."""
        assert stream in self.streams, "no such stream"
        (self.queue if self.recorded is None else self.recorded).append(work)

    @property
    def capturing(self) -> bool:
        return self.recorded is not None

    def assert_clean(self) -> None:
        """Everything was given back."""
        left = [self.memory, self.queue, self.graphs, self.executables, self.streams]
        assert not any(left), left

    def _new_handle(self) -> int:
        self.handle += 1
        return self.handle

    # ------------------------------------------------------------------ the C functions

    def cudaMalloc(self, out: Any, size: ctypes.c_size_t) -> int:
        assert not self.capturing, "allocation during capture"
        if sum(len(block) for block in self.memory.values()) + size.value > self.limit:
            return 2
        block = (ctypes.c_char * size.value).from_buffer_copy(b"\xff" * size.value)  # NaN until written
        out._obj.value = ctypes.addressof(block)
        self.memory[ctypes.addressof(block)] = block
        self.events.append(f"allocate {size.value}")
        return 0

    def cudaFree(self, address: ctypes.c_void_p) -> int:
        assert not self.capturing, "free during capture"
        assert address.value in self.memory, "freed twice or never allocated"
        self.cudaDeviceWait()
        self.events.append(f"free {len(self.memory.pop(address.value))}")
        return 0

    def cudaDeviceWait(self) -> None:
        """cudaFree waits for what is queued."""
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def cudaMemcpyAsync(self, to: Any, source: Any, size: Any, kind: Any, stream: Any) -> int:
        assert not self.capturing, "this program records executions only"
        device = to.value if kind.value == TO_DEVICE else source.value
        assert kind.value in (TO_DEVICE, TO_HOST)

        def copy() -> None:
            self.check(device, size.value)
            ctypes.memmove(to.value, source.value, size.value)

        self.submit(stream.value, copy)
        return 0

    def cudaStreamCreateWithFlags(self, out: Any, flags: ctypes.c_uint) -> int:
        assert flags.value == 1, "the default stream synchronizes with everything"
        out._obj.value = self._new_handle()
        self.streams.add(out._obj.value)
        return 0

    def cudaStreamDestroy(self, stream: ctypes.c_void_p) -> int:
        assert stream.value is not None
        self.streams.remove(stream.value)
        return 0

    def cudaStreamSynchronize(self, stream: ctypes.c_void_p) -> int:
        assert not self.capturing, "synchronization during capture"
        assert stream.value in self.streams
        self.cudaDeviceWait()
        return 0

    def cudaStreamBeginCapture(self, stream: Any, mode: ctypes.c_int) -> int:
        assert not self.capturing
        assert not self.queue, "capture while work is queued"
        assert mode.value == 2
        self.recorded = []
        self.events.append("capture")
        return 0

    def cudaStreamEndCapture(self, stream: Any, out: Any) -> int:
        assert self.recorded is not None
        recorded, self.recorded = self.recorded, None
        if self.on_capture:
            return self.on_capture
        out._obj.value = self._new_handle()
        self.graphs[out._obj.value] = recorded
        return 0

    def cudaGraphInstantiateWithFlags(self, out: Any, graph: ctypes.c_void_p, flags: ctypes.c_ulonglong) -> int:
        assert flags.value == 0
        assert graph.value is not None
        out._obj.value = self._new_handle()
        self.executables[out._obj.value] = list(self.graphs[graph.value])
        return 0

    def cudaGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        assert graph.value is not None
        del self.graphs[graph.value]
        return 0

    def cudaGraphLaunch(self, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        assert not self.capturing
        assert executable.value in self.executables, "launched after it was destroyed"
        self.events.append("launch")
        for work in self.executables[executable.value]:
            self.submit(stream.value or 0, work)
        return 0

    def cudaGraphExecDestroy(self, executable: ctypes.c_void_p) -> int:
        assert executable.value is not None
        del self.executables[executable.value]
        return 0

    def cudaGetDeviceProperties(self, properties: Any, device: ctypes.c_int) -> int:
        assert device.value == 0
        properties[:4] = b"Orin"
        return 0

    def cudaRuntimeGetVersion(self, out: Any) -> int:
        out._obj.value = 12060
        return 0

    def cudaGetErrorString(self, code: ctypes.c_int) -> bytes:
        return {2: b"out of memory", 901: b"operation failed due to a previous error during capture"}.get(
            code.value, b"unknown"
        )
