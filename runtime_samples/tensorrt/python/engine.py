"""One TensorRT engine with its context and, after its first execution, its CUDA graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle import Port
from cuda import Cuda
from errors import Refused, one_line

if TYPE_CHECKING:
    import tensorrt as trt

BUILD_AGAIN = "build it on this device with: python3 build_engines.py --force, in the bundle's folder"


class Engine:
    """An engine as read from its plan; ``bind`` makes it executable.

    Attributes:
        scratch_bytes: device memory that an execution needs besides weights, inputs and output.
    Raises:
        Refused: it does not load here, or is not of this bundle.
    """

    def __init__(self, library: Any, messages: Any, runtime: trt.Runtime, plan: Path, ports: Iterable[Port]) -> None:
        self.library, self.messages, self.name = library, messages, plan.name
        try:
            data = plan.read_bytes()
        except OSError as error:
            raise Refused(
                f"cannot read {plan}: {error.strerror}; build it on this device with: python3 build_engines.py, in the "
                "bundle's folder"
            ) from error
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise Refused(
                f"{plan.name} does not load: it is damaged or was built for another TensorRT or GPU; {BUILD_AGAIN}"
                f"{messages.last()}"
            )
        self.engine = engine
        self.tensors = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._check(ports)
        self.scratch_bytes = int(engine.device_memory_size_v2)
        self.context: trt.IExecutionContext | None = None
        self.graph, self.executed = 0, False

    def _check(self, ports: Iterable[Port]) -> None:
        dtypes = {"float32": self.library.DataType.FLOAT, "int64": self.library.DataType.INT64}
        known = {port.name: port for port in ports}
        for name in self.tensors:
            sizes, dtype = self.engine.get_tensor_shape(name), self.engine.get_tensor_dtype(name)
            shape = tuple(int(sizes[axis]) for axis in range(len(sizes)))
            port = known.get(name)
            if port is None or shape != port.shape or dtype != dtypes[port.dtype.name]:
                want = "none of that name" if port is None else f"{port.dtype.name} of shape {port.shape}"
                raise Refused(
                    one_line(
                        f"{self.name} has {name!r}, {dtype} of shape {shape}, the bundle has {want}; {BUILD_AGAIN}"
                    )
                )

    def bind(self, scratch: int, size: int, addresses: Mapping[str, int]) -> None:
        """Give it scratch memory of ``size`` bytes and the addresses of its inputs and output, for good."""
        context: trt.IExecutionContext | None = self.engine.create_execution_context(
            self.library.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is None:
            raise Refused(
                f"TensorRT makes no context for {self.name}, free GPU memory, or take --reload{self.messages.last()}"
            )
        context.set_device_memory(scratch, size)
        for name in self.tensors:
            if not context.set_tensor_address(name, addresses[name]):
                raise Refused(
                    f"TensorRT refuses the address of {name!r} of {self.name}; {BUILD_AGAIN}{self.messages.last()}"
                )
        self.context = context

    def run(self, cuda: Cuda, graphs: bool) -> None:
        """Queue one execution. With ``graphs`` the first one is plain, as it sets things up that must not be recorded, and
        the second one records what it and all later ones launch."""
        if graphs and self.executed and not self.graph:
            self.record(cuda)
        if self.graph:
            cuda.launch(self.graph)
        else:
            self._enqueue(cuda)
        self.executed = True

    def record(self, cuda: Cuda) -> None:
        """Record now, after the first execution, what the next one would. Raises Refused."""
        cuda.synchronize()
        try:
            cuda.begin_capture()
            try:
                self._enqueue(cuda)
            except Refused:
                cuda.abandon_capture()
                raise
            self.graph = cuda.end_capture()
        except Refused as error:
            raise Refused(f"{self.name} cannot be recorded as a CUDA graph ({error}); take --no-cuda-graphs") from error

    def _enqueue(self, cuda: Cuda) -> None:
        assert self.context is not None
        if not self.context.execute_async_v3(cuda.stream):
            raise Refused(f"TensorRT could not execute {self.name}; {BUILD_AGAIN}{self.messages.last()}")

    def release(self, cuda: Cuda) -> None:
        """Give everything back; the graph first, it refers to the context."""
        if self.graph:
            cuda.destroy(self.graph)
            self.graph = 0
        self.context = None
        del self.engine
