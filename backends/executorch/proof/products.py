"""Convolutions and linear layers of the lowered file: what they are, which types they compute in, what constants they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dq_toolchain.backends.executorch.proof.pte_file import NOTHING, Graph, Method, Node, Value
from dq_toolchain.toolchain.errors import BackendError

PRODUCTS = ("Conv2d", "DepthwiseConv2d", "FullyConnected")
REMEDY = "nothing was exported; report it with calibration.json"


def fail(text: str) -> BackendError:
    return BackendError(f"audit of the lowered file failed: {text}; {REMEDY}")


def products(method: Method) -> Iterator[tuple[Graph, Node]]:
    for graph in method.delegates:
        for node in graph.nodes:
            if node.kind in PRODUCTS:
                yield graph, node


def is_float(graph: Graph, node: Node) -> bool:
    return graph.values[node.fields["filter_id"]].dtype == "fp32"


def check_types(graph: Graph, node: Node, layer: str, entry: str, result: str) -> None:
    filter_type = graph.values[node.fields["filter_id"]].dtype
    got = (graph.values[node.fields["input1_id"]].dtype, graph.values[node.fields["output_id"]].dtype)
    if got != (entry, result) or filter_type not in ("qcint8", "qcint4"):
        raise fail(f"{layer} runs as {got[0]} x {filter_type} -> {got[1]}, expected {entry} x qcint8 -> {result}")


def decode_weights(value: Value, kind: str, dtype: type[np.generic] = np.int8) -> npt.NDArray[Any]:
    """A filter of the file as the artifact has it: (out, in, height, width) or (out, in), padding channels included. That of a
    Conv1d is as ``as_filter`` makes it."""
    if value.dtype == "qcint4":
        packed = np.frombuffer(value.data, np.uint8).reshape(value.dims[0], -1)
        pairs = np.stack([packed & 15, packed >> 4], axis=-1).reshape(value.dims[0], -1)
        return (pairs.astype(np.int16) - 8).astype(np.int8)[:, : value.dims[1]]
    weights = np.frombuffer(value.data, dtype).reshape(value.dims)
    if kind == "Conv2d":
        return weights.transpose(0, 3, 1, 2)
    return weights.transpose(3, 0, 1, 2) if kind == "DepthwiseConv2d" else weights


def range_dims(graph: Graph, node: Node) -> int:
    """Over how many of the last dimensions of its input XNNPACK takes a range: 1 is a token, 3 a picture; 0: it takes none.

    That is what the file says. For convolutions with kernel 1x1 XNNPACK takes it over one pixel nevertheless.
    """
    kind, fields = graph.values[node.fields["input1_id"]].quantization or ("", {})
    return int(fields["num_nonbatch_dims"]) if kind == "PerTokenDynamicQuant" else 0


def bias_of(graph: Graph, node: Node) -> Value | None:
    return None if node.fields["bias_id"] == NOTHING else graph.values[node.fields["bias_id"]]
