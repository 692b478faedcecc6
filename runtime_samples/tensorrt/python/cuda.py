"""The few calls of the CUDA runtime that sampling needs, by ctypes: nothing has to be installed beside JetPack."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any

from errors import Refused
from safetensors_file import Array

LIBRARIES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12")
TO_DEVICE, TO_HOST = 1, 2
NON_BLOCKING = 1
RELAXED = 2
"""Capture mode: what an engine sets up on the side may allocate."""
PROPERTIES_BYTES, NAME_BYTES = 8192, 256
"""More than cudaDeviceProp ever took; it begins with the name."""


def load_library() -> Any:
    """The CUDA runtime. Raises Refused: it is not found."""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.cudaGetErrorString.restype = c_char_p
        return library
    raise Refused(
        "no libcudart.so is found; install CUDA with JetPack, or add the lib64 folder of CUDA to LD_LIBRARY_PATH"
    )


class Cuda:
    """One device, number 0, and one stream. Addresses and handles are integers.

    Args:
        library: with the functions of libcudart; None loads it.
    Raises:
        Refused: from every method, where CUDA reports an error.
    """

    def __init__(self, library: Any = None) -> None:
        self.library = load_library() if library is None else library
        stream = c_void_p()
        self._call("cudaStreamCreateWithFlags", byref(stream), c_uint(NON_BLOCKING))
        self.stream = int(stream.value or 0)

    def _call(self, name: str, *arguments: Any) -> None:
        code = int(getattr(self.library, name)(*arguments))
        if code:
            text = (self.library.cudaGetErrorString(c_int(code)) or b"").decode("utf-8", "replace")
            raise Refused(f"{name} failed with CUDA error {code} ({text}); free GPU memory or take --reload")

    def allocate(self, size: int) -> int:
        """Address of ``size`` bytes on the device."""
        address = c_void_p()
        self._call("cudaMalloc", byref(address), c_size_t(max(size, 1)))
        return int(address.value or 0)

    def free(self, address: int) -> None:
        self._call("cudaFree", c_void_p(address))

    def upload(self, address: int, host: Array) -> None:
        """Queue a copy of a contiguous array to the device."""
        self._copy(address, host.ctypes.data, host.nbytes, TO_DEVICE)

    def download(self, host: Array, address: int) -> None:
        """Queue a copy from the device into a contiguous array."""
        self._copy(host.ctypes.data, address, host.nbytes, TO_HOST)

    def _copy(self, to: int, source: int, size: int, kind: int) -> None:
        self._call(
            "cudaMemcpyAsync", c_void_p(to), c_void_p(source), c_size_t(size), c_int(kind), c_void_p(self.stream)
        )

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        self._call("cudaStreamSynchronize", c_void_p(self.stream))

    def begin_capture(self) -> None:
        """From here on what is queued is recorded instead of executed."""
        self._call("cudaStreamBeginCapture", c_void_p(self.stream), c_int(RELAXED))

    def end_capture(self) -> int:
        """The recorded work, ready to launch."""
        graph, executable = c_void_p(), c_void_p()
        self._call("cudaStreamEndCapture", c_void_p(self.stream), byref(graph))
        try:
            self._call("cudaGraphInstantiateWithFlags", byref(executable), graph, c_ulonglong(0))
        finally:
            self._call("cudaGraphDestroy", graph)
        return int(executable.value or 0)

    def abandon_capture(self) -> None:
        """Forget what was recorded; errors do not count, one led here."""
        graph = c_void_p()
        if self.library.cudaStreamEndCapture(c_void_p(self.stream), byref(graph)) == 0 and graph.value:
            self.library.cudaGraphDestroy(graph)

    def launch(self, executable: int) -> None:
        """Queue recorded work."""
        self._call("cudaGraphLaunch", c_void_p(executable), c_void_p(self.stream))

    def destroy(self, executable: int) -> None:
        self._call("cudaGraphExecDestroy", c_void_p(executable))

    def close(self) -> None:
        """Give the stream back."""
        if self.stream:
            self._call("cudaStreamDestroy", c_void_p(self.stream))
            self.stream = 0

    def device_name(self) -> str:
        """Name of the GPU, e.g. "Orin"."""
        properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
        self._call("cudaGetDeviceProperties", properties, c_int(0))
        return properties.raw[:NAME_BYTES].partition(b"\0")[0].decode("utf-8", "replace") or "unnamed GPU"

    def version(self) -> str:
        """Of the CUDA runtime, e.g. "12.6"."""
        number = c_int()
        self._call("cudaRuntimeGetVersion", byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"
