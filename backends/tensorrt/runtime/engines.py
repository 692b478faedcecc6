"""TensorRT engines on a CUDA device: one context at a time in memory that all of them share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.call import OUTPUT
from dq_toolchain.backends.tensorrt.deploy.build_engines import ENGINES
from dq_toolchain.backends.tensorrt.deploy.made_of import SUFFIX, is_made_of, listed_files, made_of
from dq_toolchain.toolchain.errors import BackendError

if TYPE_CHECKING:
    import tensorrt as trt

BUILD = "build it on this device with: python3 {folder}/build_engines.py"


class Engines:
    """The engines of a bundle. Step groups come in order, so an engine is loaded when its group comes and the former one
    goes: two of them never take memory at once.

    Args:
        library: the tensorrt module. folder: of the bundle. device: of torch; "cuda", another one in tests.
    Raises:
        BackendError: an engine is missing, or was made of other files than those of the bundle.
    """

    def __init__(self, library: Any, folder: Path, methods: Sequence[str], device: str = "cuda") -> None:
        self.device, self.folder = torch.device(device), folder
        self.strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
        self.plans = {method: folder / ENGINES / f"{method}.plan" for method in methods}
        missing = [plan.name for plan in self.plans.values() if not plan.is_file()]
        if missing:
            raise BackendError(f"{missing[0]} is missing; {BUILD.format(folder=folder)}")
        _expect_own(folder, self.plans.values())
        self.runtime: trt.Runtime = library.Runtime(library.Logger(library.Logger.WARNING))
        self.stream = torch.cuda.Stream() if self.device.type == "cuda" else None
        self.scratch = torch.empty(0, dtype=torch.uint8, device=self.device)
        self.current = ""
        self.engine: trt.ICudaEngine | None = None
        self.context: trt.IExecutionContext | None = None

    def __call__(self, method: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """The network output, on the CPU. Raises BackendError: the engine does not load or execute."""
        return self.execute(method, inputs, {OUTPUT: tuple(inputs["sample"].shape)})[OUTPUT]

    def shape_of(self, method: str, name: str) -> tuple[int, ...]:
        """Of an input or an output. Raises BackendError: the engine does not load."""
        if method != self.current:
            self._load(method)
        assert self.engine is not None
        return tuple(int(size) for size in self.engine.get_tensor_shape(name))

    def execute(
        self, method: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Tensor]:
        """Outputs of these shapes by name, float32, on the CPU. Raises BackendError: the engine does not load or execute."""
        if method != self.current:
            self._load(method)
        assert self.context is not None
        here = {name: tensor.to(self.device).contiguous() for name, tensor in inputs.items()}
        here |= {name: torch.empty(shape, device=self.device) for name, shape in outputs.items()}
        for name, tensor in here.items():
            if not self.context.set_tensor_address(name, tensor.data_ptr()):
                raise BackendError(
                    f"{method} has no input or output {name!r}; run `dq-toolchain export --target tensorrt` again"
                )
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream())
        if not self.context.execute_async_v3(0 if self.stream is None else self.stream.cuda_stream):
            raise BackendError(f"TensorRT could not execute {method}; its messages are above")
        if self.stream is not None:
            self.stream.synchronize()
        return {name: here[name].cpu() for name in outputs}

    def _load(self, method: str) -> None:
        self.context = self.engine = None  # their memory first
        engine = self.runtime.deserialize_cuda_engine(self.plans[method].read_bytes())
        if engine is None:
            raise BackendError(
                f"{self.plans[method].name} was built for another TensorRT or GPU; "
                f"{BUILD.format(folder=self.folder)} --force"
            )
        size = int(engine.device_memory_size_v2)
        if size > self.scratch.numel():
            self.scratch = torch.empty(size, dtype=torch.uint8, device=self.device)
        context = engine.create_execution_context(self.strategy)
        context.set_device_memory(self.scratch.data_ptr(), self.scratch.numel())
        self.current, self.engine, self.context = method, engine, context


def _expect_own(folder: Path, plans: Iterable[Path]) -> None:
    """Raise BackendError for an engine of another bundle, such as the one whose place this bundle took."""
    try:
        files = listed_files(folder)
        for plan in plans:
            if is_made_of(plan, made_of(plan.stem, files)):
                continue
            beside = plan.with_suffix(SUFFIX)
            why = (
                "says so"
                if beside.exists()
                else "is missing; bundles of version 0.1 have no such file, export them again"
            )
            raise BackendError(
                f"{plan.name} was not made of the graph and weights of this bundle, {beside.name} {why}; "
                f"{BUILD.format(folder=folder)}"
            )
    except (OSError, ValueError) as error:
        raise BackendError(f"bundle.json in {folder} cannot be read: {error}; copy the whole bundle again") from error
