"""Compile one graph with TensorRT for RTX on this CPU, in a process of its own: the compiler may crash.

    python -m dq_toolchain.backends.tensorrt.proof.nvidia_compiler GRAPH SM86

Prints one JSON object: version, errors, and "layers", the builder's list in the form of TensorRT's engine inspector.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

BINDINGS, LIBRARIES = "tensorrt_rtx_bindings", "onnxruntime_ep_nv_tensorrt_rtx"
"""Python wheels that hold NVIDIA's bindings, and the libraries they need."""
LOADED_FIRST = ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so")
START = "Layers:"
DUMP = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*?)\](?:, Constants: .*?)?, Outputs: "
)
DATATYPE = re.compile(r"Datatype: (\w+)")
METADATA = re.compile(r"\[ONNX Layer: [^\]]*\]")


def bindings() -> Any:
    """The Python bindings, with the libraries of the other wheel. Raises ImportError, OSError."""
    spec = importlib.util.find_spec(LIBRARIES)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{LIBRARIES} is not installed")
    folder = Path(next(iter(spec.submodule_search_locations)))
    for library in LOADED_FIRST:
        ctypes.CDLL(str(sorted(folder.glob(f"{library}*"))[0]), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module(BINDINGS)


def compile_graph(graph: Path, compute_capability: str) -> dict[str, Any]:
    """Parse and build a graph for a GPU that need not be here."""
    trt = bindings()
    messages: list[str] = []
    errors: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            messages.append(message)
            if severity.value <= trt.ILogger.Severity.ERROR.value:
                errors.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    layers: list[dict[str, Any]] = []
    if not parser.parse_from_file(str(graph.resolve())):
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        errors = [f"parser: {e.node_name()}: {e.desc()}" for e in found] or errors
    else:
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, compute_capability), 0)
        if builder.build_serialized_network(network, config) is not None:
            errors, layers = [], read_layers(messages)
    return {"version": trt.__version__, "errors": errors, "layers": layers}


def read_layers(messages: list[str]) -> list[dict[str, Any]]:
    """The layers that the builder lists in its log, as dictionaries like the engine inspector's."""
    lines = "\n".join(messages).splitlines()
    if START not in lines:
        return []
    found = []
    for line in lines[lines.index(START) + 1 :]:
        match = DUMP.match(line)
        if match is None:
            break
        inputs = [{"Format/Datatype": kind} for kind in DATATYPE.findall(match["inputs"])]
        found.append(
            {
                "Name": match["name"],
                "LayerType": match["kind"],
                "Inputs": inputs,
                "Metadata": "".join(METADATA.findall(line)),
            }
        )
    return found


if __name__ == "__main__":
    print(json.dumps(compile_graph(Path(sys.argv[1]), sys.argv[2])))
