"""A TensorRT on the CPU: plans hold the path of their graph, ONNX Runtime executes them at the addresses it is given."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dq_toolchain.backends.common.onnx.session import open_session

__version__ = "10.3.0"
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
events: list[str] = []
"""What was loaded and built, in order."""
in_float: set[str] = set()
"""Sites that this builder runs in float."""


class Logger:
    WARNING = 2

    def __init__(self, level: int) -> None:
        assert level == self.WARNING


ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
BuilderFlag = SimpleNamespace(INT8="int8", FP16="fp16")
NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
LayerInformationFormat = SimpleNamespace(JSON="json")
ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")


class OnnxParser:
    def __init__(self, network: SimpleNamespace, logger: Logger) -> None:
        self.network, self.num_errors = network, 0

    def parse_from_file(self, path: str) -> bool:
        self.network.path = path
        if Path(path).exists():
            return True
        self.num_errors = 1
        return False

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(node_name=lambda: "file", desc=lambda: "is not there")


class Config:
    def __init__(self) -> None:
        self.flags: list[str] = []
        self.pools: dict[str, int] = {}
        self.profiling_verbosity, self.builder_optimization_level = "", 0

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def create_timing_cache(self, data: bytes) -> bytes:
        events.append(f"timing cache of {len(data)} bytes")
        return data

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"timed")


class Builder:
    def __init__(self, logger: Logger) -> None:
        self.config = Config()

    def create_network(self, flags: int) -> SimpleNamespace:
        return SimpleNamespace(flags=flags, path="")

    def create_builder_config(self) -> Config:
        return self.config

    def build_serialized_network(self, network: SimpleNamespace, config: Config) -> bytes:
        assert config.profiling_verbosity == "detailed"
        events.append(f"build {Path(network.path).stem} strong={network.flags} {'+'.join(config.flags)}")
        return json.dumps(network.path).encode()


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.addresses, self.scratch = engine, dict[str, int](), (0, 0)

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.scratch = address, size

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in {port.name for port in (*self.engine.inputs, *self.engine.outputs)}

    def execute_async_v3(self, stream: int) -> bool:
        assert self.scratch[0]
        feeds = {}
        for port in self.engine.inputs:
            array = np.empty(port.shape, TYPES[port.type])
            ctypes.memmove(array.ctypes.data, self.addresses[port.name], array.nbytes)
            feeds[port.name] = array
        for port, value in zip(self.engine.outputs, self.engine.session.run(None, feeds), strict=True):
            ctypes.memmove(self.addresses[port.name], np.ascontiguousarray(value).ctypes.data, value.nbytes)
        return True


class Engine:
    def __init__(self, path: str) -> None:
        self.path, self.session = Path(path), open_session(Path(path))
        self.inputs, self.outputs = self.session.get_inputs(), self.session.get_outputs()
        self.device_memory_size_v2 = 1000 + len(events)
        events.append(f"load {self.path.stem}")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        (port,) = (port for port in (*self.inputs, *self.outputs) if port.name == name)
        return tuple(port.shape)

    def create_execution_context(self, strategy: str) -> Context:
        assert strategy == "user"
        return Context(self)

    def create_engine_inspector(self) -> Any:
        bundle = next(folder for folder in self.path.parents if (folder / "placements.json").is_file())
        placements = json.loads((bundle / "placements.json").read_text())
        graph = self.path.relative_to(bundle).as_posix()
        placed = next((row for row in placements.get("parts", []) if row["graph"] == graph), placements)
        layers: list[Any] = [
            {
                "Name": site,
                "LayerType": "CaskConvolution",
                "Metadata": f"[ONNX Layer: {site}]",
                "Inputs": [
                    {
                        "Format/Datatype": "Row major linear FP16 format"
                        if site in in_float
                        else "Thirty-two wide channel vectorized row major Int8 format"
                    }
                ],
            }
            for site in placed["int8"]
        ]
        return SimpleNamespace(get_engine_information=lambda form: json.dumps({"Layers": layers, "Bindings": []}))


class Runtime:
    def __init__(self, logger: Logger) -> None:
        pass

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        return None if plan == b"foreign" else Engine(json.loads(plan))
