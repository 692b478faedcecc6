"""What is really in a .pte on disk: methods, portable operators, and XNNPACK's graphs with their constants.

The audit compares this, not anything that the lowering remembered, with the artifact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dq_toolchain.backends.executorch.proof.flatbuffer import Reader, Schema
from dq_toolchain.backends.executorch.vendor import serialization
from dq_toolchain.toolchain.errors import BackendError

NOTHING = 2**32 - 1
"""XNNPACK's invalid value id: no bias."""


@dataclass(frozen=True)
class Value:
    """One tensor of a delegate: ``dtype`` without its prefix (fp32, qint8, qcint8, qcint4, qdint8, qcint32...).

    ``data`` are a constant's bytes, b"" otherwise; ``quantization`` is the schema's (kind, fields) or None.
    """

    dtype: str
    dims: tuple[int, ...]
    data: bytes
    external: int
    quantization: tuple[str, dict[str, Any]] | None
    scales: bytes


@dataclass(frozen=True)
class Node:
    """One operation of a delegate: ``kind`` without XNN prefix, ``fields`` as in XNNPACK's schema."""

    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """One delegate. ``values`` by id; ``producer`` gives the node that writes a value."""

    values: dict[int, Value]
    nodes: tuple[Node, ...]
    producer: dict[int, Node]


@dataclass(frozen=True)
class Method:
    """``portable``: names of the operators called outside delegates, in order. ``delegates``: in order of call."""

    name: str
    portable: tuple[str, ...]
    delegates: tuple[Graph, ...]


@dataclass(frozen=True)
class PteFile:
    """``constants``: sizes in bytes of the portable operators' constants. ``named``: delegates' constants by key."""

    methods: tuple[Method, ...]
    constants: tuple[int, ...]
    named: dict[str, bytes]


def read_pte(path: Path) -> PteFile:
    """Parse a .pte. Raises BackendError: it cannot be read."""
    tools = serialization()
    try:
        file = tools.deserialize_pte_binary(path.read_bytes())
        named = (
            {}
            if file.named_data is None
            else {
                key: bytes(file.named_data.buffers[entry.buffer_index])
                for key, entry in file.named_data.pte_data.items()
            }
        )
        schema = Schema.parse(tools.xnnpack_schema)
        methods = tuple(_method(plan, file.program, schema, named) for plan in file.program.execution_plan)
    except Exception as error:  # executorch's parser raises anything on a damaged file
        raise BackendError(
            f"{path} cannot be read back: {type(error).__name__} {' '.join(str(error).split())[:200]}; "
            "run `dq-toolchain export` again"
        ) from error
    return PteFile(methods, tuple(len(buffer.storage) for buffer in file.program.constant_buffer), named)


def _method(plan: Any, program: Any, schema: Schema, named: dict[str, bytes]) -> Method:
    portable, delegates = [], []
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if type(call).__name__ == "KernelCall":
                operator = plan.operators[call.op_index]
                portable.append(f"{operator.name}.{operator.overload}" if operator.overload else operator.name)
            elif type(call).__name__ == "DelegateCall":
                delegate = plan.delegates[call.delegate_index]
                if delegate.id != "XnnpackBackend":
                    raise ValueError(f"unknown delegate {delegate.id}")
                payload = bytes(program.backend_delegate_data[delegate.processed.index].data)
                delegates.append(_graph(payload, schema, named))
    return Method(plan.name, tuple(portable), tuple(delegates))


def _graph(payload: bytes, schema: Schema, named: dict[str, bytes]) -> Graph:
    header_type = serialization().XNNHeader
    header = header_type.from_bytes(payload[: header_type.EXPECTED_LENGTH])
    start = header.flatbuffer_offset
    data = Reader(schema, payload[start : start + header.flatbuffer_size]).root("XNNGraph")

    def constant(index: int) -> bytes:
        entry = data["constant_data"][index]
        if entry["named_key"]:
            return named[entry["named_key"]][: entry["size"]]
        begin = header.constant_data_offset + entry["offset"]
        return payload[begin : begin + entry["size"]]

    values = {}
    for kind, value in (entry["xvalue_union"] for entry in data["xvalues"]):
        quantization, scales = None, b""
        if kind == "XNNQuantizedTensorValue":
            quantization, value = value["quant_params"], value["tensor_value"]
            if quantization[0] == "PerChannelQuant":
                scales = constant(quantization[1]["scale_buffer_idx"])
        index = value["constant_buffer_idx"]
        values[value["id_out"]] = Value(
            value["datatype"].removeprefix("xnn_datatype_"),
            tuple(value["dims"]),
            constant(index) if index else b"",
            value["external_id"],
            quantization,
            scales,
        )
    nodes = tuple(Node(kind.removeprefix("XNN"), fields) for kind, fields in (n["xnode_union"] for n in data["xnodes"]))
    return Graph(values, nodes, dict(_producers(nodes)))


def _producers(nodes: tuple[Node, ...]) -> Iterator[tuple[int, Node]]:
    for node in nodes:
        yield node.fields["output_id"], node
