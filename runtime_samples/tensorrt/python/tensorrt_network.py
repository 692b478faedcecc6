"""TensorRT engines of all step groups, or of one at a time, in device memory that they share."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from bundle import Bundle
from cuda import Cuda
from engine import Engine
from errors import Refused
from made_of import expect_own
from messages import keep_messages
from safetensors_file import Array, Floats

if TYPE_CHECKING:
    import tensorrt as trt

ENGINES = "engines"


def open_tensorrt(bundle: Bundle, reload: bool, graphs: bool) -> TensorRTNetwork:
    """The network on this device. Raises Refused: TensorRT or CUDA is not here, or an engine is missing or does not load."""
    try:
        library = importlib.import_module("tensorrt")
    except ImportError as error:
        raise Refused(
            "Python does not find tensorrt; install it with JetPack and take the system's python3, or --backend "
            "onnxruntime to check the bundle on the CPU"
        ) from error
    return TensorRTNetwork(bundle, library, Cuda(), reload, graphs)


class TensorRTNetwork:
    """Engines, one scratch memory as large as the largest needs, one set of inputs and output, one stream.

    Args:
        library: the tensorrt module.
        reload: keep one engine, load the next when its step group comes; else all stay.
        graphs: record each engine's work as a CUDA graph.
    Raises:
        Refused: an engine is missing, was made of other files than the bundle's or does not load, or the device has too little
            memory.
    """

    name = "TensorRT (Python)"

    def __init__(self, bundle: Bundle, library: Any, cuda: Cuda, reload: bool, graphs: bool) -> None:
        start = time.perf_counter()
        self.library, self.cuda, self.reload, self.graphs = library, cuda, reload, graphs
        self.version = str(library.__version__)
        self.versions: Mapping[str, str] = {"cuda": cuda.version()}
        modes = (
            "one engine at a time" if reload else "all engines resident",
            "CUDA graphs" if graphs else "no CUDA graphs",
        )
        self.compute_unit = f"{cuda.device_name()} GPU, {', '.join(modes)}"
        self.ports = (*bundle.inputs, bundle.output)
        self.plans = {method: bundle.folder / ENGINES / f"{method}.plan" for method in bundle.methods}
        for plan in self.plans.values():
            expect_own(plan, bundle.files)
        self.messages = keep_messages(library)
        self.runtime: trt.Runtime = library.Runtime(self.messages)
        self.output = bundle.output.name
        self.host: dict[str, Array] = {port.name: np.zeros(port.shape, port.dtype) for port in self.ports}
        self.device = {name: cuda.allocate(array.nbytes) for name, array in self.host.items()}
        self.scratch, self.scratch_bytes = 0, 0
        self.engines: dict[str, Engine] = {}
        if not reload:
            for method in self.plans:
                self.engines[method] = self._read(method)
            self._grow(max(engine.scratch_bytes for engine in self.engines.values()))
            for engine in self.engines.values():
                engine.bind(self.scratch, self.scratch_bytes, self.device)
        self.load_ms = (time.perf_counter() - start) * 1e3

    def warm_up(self, method: str, inputs: Mapping[str, Array]) -> None:
        """The first execution, and where the engine stays the recording of its CUDA graph. What it loads counts as loading."""
        start = time.perf_counter()
        if self._load(method):
            self.load_ms += (time.perf_counter() - start) * 1e3
        self.execute(method, inputs)
        if self.graphs and not self.reload:
            self.engines[method].record(self.cuda)

    def execute(self, method: str, inputs: Mapping[str, Array]) -> Floats:
        """The output, (1, C, ...) float32. Raises Refused: it does not load or execute."""
        self._load(method)
        for name, value in inputs.items():
            np.copyto(self.host[name], value)  # stays where it is until the copy was made
            self.cuda.upload(self.device[name], self.host[name])
        self.engines[method].run(self.cuda, self.graphs)
        self.cuda.download(self.host[self.output], self.device[self.output])
        self.cuda.synchronize()
        return np.array(self.host[self.output], np.float32)

    def _load(self, method: str) -> bool:
        """Whether it had to be loaded."""
        if method in self.engines:
            return False
        self._drop()  # its memory first
        engine = self._read(method)
        self._grow(engine.scratch_bytes)
        engine.bind(self.scratch, self.scratch_bytes, self.device)
        self.engines[method] = engine
        return True

    def _read(self, method: str) -> Engine:
        return Engine(self.library, self.messages, self.runtime, self.plans[method], self.ports)

    def _grow(self, size: int) -> None:
        """Scratch memory of at least ``size`` bytes. No context may refer to the former one."""
        if size <= self.scratch_bytes:
            return
        if self.scratch:
            self.cuda.free(self.scratch)
            self.scratch = self.scratch_bytes = 0
        self.scratch, self.scratch_bytes = self.cuda.allocate(size), size

    def _drop(self) -> None:
        for engine in self.engines.values():
            engine.release(self.cuda)
        self.engines.clear()

    def close(self) -> None:
        """Engines before the memory that they use, memory before the stream, and nothing while it is in use."""
        with contextlib.suppress(Refused):
            self.cuda.synchronize()
        self._drop()
        for address in (self.scratch, *self.device.values()):
            if address:
                self.cuda.free(address)
        self.scratch, self.device = 0, {}
        self.cuda.close()
