"""A TensorRT on the CPU: a plan holds the path of its graph, ONNX Runtime executes it at the addresses that it was given."""

from __future__ import annotations

import ctypes
import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dq_toolchain.backends.common.onnx.session import open_session
from tests.runtime_samples.tensorrt.fake_cuda import FakeCuda

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class FakeTensorRT:
    """The module ``tensorrt``, bound to a CUDA.

    Attributes:
        loaded: names of graphs, in the order in which they were loaded. alive: engines now in memory.
        scratch: bytes that each graph needs, by name; 64 for others.
    """

    __version__ = "10.3.0"
    DataType = SimpleNamespace(FLOAT="float", INT64="int64", HALF="half")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")

    def __init__(self, cuda: FakeCuda, scratch: dict[str, int] | None = None) -> None:
        self.cuda, self.scratch = cuda, scratch or {}
        self.loaded: list[str] = []
        self.alive: weakref.WeakSet[Engine] = weakref.WeakSet()
        self.most_alive = 0
        self.dtype = "float"
        self.fail_after = 1 << 30

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

        def log(self, severity: int, text: str) -> None:
            raise NotImplementedError

    def Runtime(self, logger: ILogger) -> Any:
        self.logger = logger
        logger.log(2, "a warning that nobody asked for")
        return SimpleNamespace(deserialize_cuda_engine=self._load)

    def _load(self, plan: bytes) -> Engine | None:
        if plan == b"foreign":
            self.logger.log(1, "Version tag does not match.\n")
            return None
        engine = Engine(self, Path(json.loads(plan)))
        self.loaded.append(engine.path.stem)
        self.alive.add(engine)
        self.most_alive = max(self.most_alive, len(self.alive))
        return engine


class Engine:
    def __init__(self, library: FakeTensorRT, path: Path) -> None:
        self.library, self.path, self.session = library, path, open_session(path)
        self.inputs, self.outputs = list(self.session.get_inputs()), list(self.session.get_outputs())
        self.ports = {port.name: port for port in (*self.inputs, *self.outputs)}
        self.num_io_tensors = len(self.ports)
        self.device_memory_size_v2 = library.scratch.get(path.stem, 64)

    def get_tensor_name(self, index: int) -> str:
        return str(list(self.ports)[index])

    def get_tensor_shape(self, name: str) -> list[int]:
        return [int(size) for size in self.ports[name].shape]

    def get_tensor_dtype(self, name: str) -> str:
        return self.library.dtype if TYPES[self.ports[name].type] is np.float32 else "int64"

    def create_execution_context(self, strategy: str) -> Context:
        assert strategy == "user"
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.cuda = engine, engine.library.cuda
        self.addresses: dict[str, int] = {}
        self.scratch, self.executed = (0, 0), False

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.cuda.check(address, size)
        self.scratch = address, size

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.ports

    def execute_async_v3(self, stream: int) -> bool:
        assert self.scratch[0], "no scratch memory"
        assert set(self.addresses) == set(self.engine.ports), "an input or output has no address"
        assert self.executed or not self.cuda.capturing, "capture before a first execution"
        self.engine.library.fail_after -= 1
        if self.engine.library.fail_after < 0:
            return False
        alive = weakref.ref(self)

        def work() -> None:
            context = alive()
            assert context is not None, "the context is gone"
            context.compute()

        self.cuda.submit(stream, work)
        return True

    def compute(self) -> None:
        """Read the inputs, spoil the scratch memory as a kernel does, write the output."""
        self.executed = True
        self.cuda.check(*self.scratch)
        ctypes.memset(self.scratch[0], 0xAB, self.engine.device_memory_size_v2)
        feeds = {}
        for port in self.engine.inputs:
            array = np.empty(port.shape, TYPES[port.type])
            self.cuda.check(self.addresses[port.name], array.nbytes)
            ctypes.memmove(array.ctypes.data, self.addresses[port.name], array.nbytes)
            feeds[port.name] = array
        for port, value in zip(self.engine.outputs, self.engine.session.run(None, feeds), strict=True):
            self.cuda.check(self.addresses[port.name], value.nbytes)
            ctypes.memmove(self.addresses[port.name], np.ascontiguousarray(value).ctypes.data, value.nbytes)
