"""What is really in a .pte on disk: methods, portable operators, and XNNPACK's graphs with their constants.

The audit compares this, not anything that the lowering remembered, with the artifact. Values have one number in the whole of a
method, so that what one delegate hands to another, or gets from a constant of the program, can be followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from dq_toolchain.backends.executorch.proof.flatbuffer import Reader, Schema
from dq_toolchain.backends.executorch.vendor import serialization
from dq_toolchain.toolchain.errors import BackendError

NOTHING = 2**32 - 1
"""XNNPACK's invalid value id: no bias."""
_TYPES = {"FLOAT": ("fp32", 4), "CHAR": ("int8", 1)}
"""Of the program's constants: name as of a delegate's, bytes."""


@dataclass(frozen=True)
class Value:
    """One tensor of a delegate: ``dtype`` without its prefix (fp32, qint8, qcint8, qcint4, qdint8, qcint32...).

    A constant of the program, which lies outside the delegates, is one, too: fp32, int8 or "other", whose bytes are left out.
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
    """One operation. In a delegate: ``kind`` without XNN prefix, ``fields`` as in XNNPACK's schema.

    Outside: ``kind`` is the operator's name, ``fields`` are ``arguments``, a tuple of values, and ``output_id``.
    """

    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """One delegate. Of the whole method are ``values`` by id, and ``producer``, the node that writes a value."""

    values: dict[int, Value]
    nodes: tuple[Node, ...]
    producer: dict[int, Node]


@dataclass(frozen=True)
class Method:
    """``portable``: operators called outside delegates, in order. ``delegates``: in order of call. ``inputs``: values."""

    name: str
    portable: tuple[Node, ...]
    delegates: tuple[Graph, ...]
    inputs: tuple[int, ...]


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
    values, delegates, portable = dict(_constants(plan, program)), list[tuple[Node, ...]](), list[Node]()
    used = len(plan.values)
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if type(call).__name__ == "KernelCall":
                operator = plan.operators[call.op_index]
                name = f"{operator.name}.{operator.overload}" if operator.overload else operator.name
                portable.append(Node(name, {"arguments": tuple(call.args), "output_id": call.args[-1]}))
            elif type(call).__name__ == "DelegateCall":
                delegate = plan.delegates[call.delegate_index]
                if delegate.id != "XnnpackBackend":
                    raise ValueError(f"unknown delegate {delegate.id}")
                payload = bytes(program.backend_delegate_data[delegate.processed.index].data)
                own, nodes = _delegate(payload, schema, named)
                numbers = _numbers(own, nodes, call.args, used)
                used += len(own)
                for number, value in own.items():
                    known = values.get(numbers[number])
                    values[numbers[number]] = value if known is None else replace(value, data=known.data)
                delegates.append(tuple(_renumbered(node, numbers) for node in nodes))
    producer = {node.fields["output_id"]: node for nodes in (portable, *delegates) for node in nodes}
    graphs = tuple(Graph(values, nodes, producer) for nodes in delegates)
    return Method(plan.name, tuple(portable), graphs, tuple(plan.inputs))


def _constants(plan: Any, program: Any) -> Iterator[tuple[int, Value]]:
    """Constants of the program, by their number in the method; they are padded in the file."""
    for number, value in enumerate(plan.values):
        tensor = value.val
        if type(tensor).__name__ == "Tensor" and tensor.allocation_info is None and tensor.data_buffer_idx:
            dtype, size = _TYPES.get(tensor.scalar_type.name, ("other", 0))
            data = bytes(program.constant_buffer[tensor.data_buffer_idx].storage)
            yield number, Value(dtype, tuple(tensor.sizes), data[: size * prod(tensor.sizes)], NOTHING, None, b"")


def _numbers(own: Mapping[int, Value], nodes: Sequence[Node], arguments: Sequence[int], used: int) -> Mapping[int, int]:
    """A delegate's values -> the method's. As at run time: arguments are its inputs, then its outputs, by external id."""
    written = {node.fields["output_id"] for node in nodes}
    outside = [number for number, value in own.items() if value.external != NOTHING]
    outside.sort(key=lambda number: (number in written, own[number].external))
    inside = {number: used + index for index, number in enumerate(own)}
    return {NOTHING: NOTHING} | inside | dict(zip(outside, arguments, strict=True))


def _renumbered(node: Node, numbers: Mapping[int, int]) -> Node:
    fields = {name: numbers[value] if name.endswith("_id") else value for name, value in node.fields.items()}
    return Node(node.kind, fields)


def _delegate(payload: bytes, schema: Schema, named: dict[str, bytes]) -> tuple[dict[int, Value], tuple[Node, ...]]:
    """Values and nodes of a delegate with numbers of its own."""
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
    return values, nodes
