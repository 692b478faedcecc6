"""One context for a chip: what its NPU loads, made of all step groups' graphs, with their weights in it once.

Qualcomm's compiler keeps the weights of several graphs once if their sessions share a context: of graphs whose integers are equal
and whose activation scales differ, every further one costs its code alone.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.common.onnx.libraries import onnx
from dq_toolchain.backends.qnn.graph.biases import method_of
from dq_toolchain.backends.qnn.htp.compiler import CONTEXT, compile_graphs
from dq_toolchain.backends.qnn.vendor import require_compiler
from dq_toolchain.toolchain.disk.staging import staged
from dq_toolchain.toolchain.errors import BackendError

BINARY = "steps.bin"
NODE, FILE, VERSION = "EPContext", "ep_cache_context", "ep_sdk_version"


@dataclass(frozen=True)
class Context:
    """What was written for a chip.

    Attributes:
        graphs: names of the step groups' files. bytes: of all files together. weight_bytes: of one graph's integers.
        seconds: that compiling took. qairt: version of Qualcomm's libraries; a phone needs this one or a later one.
    """

    soc: str
    graphs: tuple[str, ...]
    bytes: int
    weight_bytes: int
    seconds: float
    qairt: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write_contexts(graphs: Sequence[Path], out: Path, soc: str, say: Say, *, dumps: Path | None = None) -> Context:
    """Compile the step groups' graphs for a chip into the folder ``out``: ``steps.bin`` and one ``METHOD_ctx.onnx`` per graph.

    The folder appears whole or not at all.

    Args:
        dumps: folder that takes what ``check.compare`` reads, a folder per graph; None writes none.
    Raises:
        BackendError: Qualcomm's library is missing, refuses a graph, or did not keep the weights once.
        ToolchainError: ``out`` cannot be written.
    """
    require_compiler("--soc")
    start, weights = time.perf_counter(), integer_weights(graphs[0])
    say(
        f"compiling {len(graphs)} graphs for {soc} into one context; needs about {memory(weights, len(graphs)) / 1e9:.1f} GB "
        "of memory"
    )
    with staged(out, BINARY) as folder:
        binary = _compile(graphs, folder, soc, say, dumps)
        _check_shared(graphs, folder / binary, soc, weights)
        qairt = {_use(folder / f"{method_of(path)}{CONTEXT}", binary) for path in graphs}
        (folder / binary).rename(folder / BINARY)
        size = sum(path.stat().st_size for path in folder.iterdir())
    seconds = time.perf_counter() - start
    names = tuple(f"{method_of(path)}{CONTEXT}" for path in graphs)
    return Context(soc, names, size, weights.bytes, seconds, ", ".join(sorted(qairt)))


def _compile(graphs: Sequence[Path], folder: Path, soc: str, say: Say, dumps: Path | None) -> str:
    """Name of the one binary that the provider wrote."""
    compile_graphs(graphs, soc, say, context=folder, dumps=dumps)
    found = sorted(path.name for path in folder.iterdir() if path.suffix == ".bin")
    if len(found) != 1:
        raise BackendError(
            f"Qualcomm's compiler wrote {len(found)} contexts for {len(graphs)} graphs (expected 1), so weights are not shared; "
            "nothing was exported; report it with calibration.json"
        )
    return found[0]


def _use(path: Path, binary: str) -> str:
    """Make a context's graph name the file that it lies beside; returns the version of the libraries that made it."""
    model = onnx().load(path)
    version = ""
    for node in model.graph.node:
        if node.op_type != NODE:
            raise BackendError(
                f"{path.name} holds a {node.op_type} beside the compiled graph, so not all of it is on the NPU; nothing was "
                "exported; report it with calibration.json"
            )
        for attribute in node.attribute:
            if attribute.name == FILE:
                assert attribute.s == binary.encode()
                attribute.s = BINARY.encode()
            if attribute.name == VERSION:
                version = attribute.s.decode()
    onnx().save(model, path)
    return version


def _check_shared(graphs: Sequence[Path], binary: Path, soc: str, weights: Weights) -> None:
    """Raise BackendError if the context holds the weights more than once.

    Where its size alone does not tell, because it is mostly code, the first graph is compiled alone: a further one may take
    what that has beside its weights.
    """
    size, count = binary.stat().st_size, len(graphs)
    if count == 1 or size < 1.5 * weights.bytes:
        return
    with tempfile.TemporaryDirectory() as name:
        alone = Path(name) / _compile(graphs[:1], Path(name), soc, lambda _line: None, None)
        code = alone.stat().st_size - weights.bytes
    if size > 1.5 * weights.bytes + count * code:
        one, held = f"{(weights.bytes + code) / 1e6:.1f} MB", f"{weights.bytes / 1e6:.1f} MB"
        raise BackendError(
            f"Qualcomm's compiler keeps the weights of {count} graphs more than once for {soc}: {size / 1e6:.1f} MB, where one "
            f"graph takes {one} of which {held} are weights; nothing was exported; report it with calibration.json"
        )


@dataclass(frozen=True)
class Weights:
    """What a compiler has to hold of a graph.

    Attributes:
        count: of integer weights. bytes: they take, two of 4 bits in one.
        scores: numbers that products of two tensors give: most of them are attention's.
    """

    count: int
    bytes: int
    scores: int


def memory(weights: Weights, graphs: int) -> float:
    """Bytes that compiling takes at the peak, this process included: measured with 2 to 59 million weights of 4 and 8 bits, 1 to 3
    graphs; and of attention with one and with five blocks of 4,096 tokens (0.9 and 3.1 GB)."""
    return 2e8 + weights.count * (6.7 + 4.5 * (graphs - 1)) + 4.1 * weights.scores


def integer_weights(graph: Path) -> Weights:
    """What a graph file holds; the weights themselves are not read."""
    kinds = onnx().TensorProto
    sizes = {kinds.INT4: 0.5, kinds.UINT4: 0.5, kinds.INT8: 1.0, kinds.UINT8: 1.0}
    held = onnx().load(graph, load_external_data=False).graph
    count, total = 0, 0.0
    for tensor in held.initializer:
        if tensor.data_type in sizes and len(tensor.dims) > 1:  # zero points have one
            count += math.prod(tensor.dims)
            total += sizes[tensor.data_type] * math.prod(tensor.dims)
    shapes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in held.value_info}
    products = [node.output[0] for node in held.node if node.op_type == "MatMul"]
    return Weights(count, int(total), sum(math.prod(shapes[name]) for name in products if name in shapes))
