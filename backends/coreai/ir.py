"""The operations of an .aimodel, to be read and patched: every private name of coreai-core that this needs is in this file.

A ``Program`` keeps the vendor's module alive: operations of a module that is gone crash the process.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dq_toolchain.backends.coreai.vendor import bindings, mlir

NUMPY: Mapping[str, Any] = {
    "f32": np.float32, "f16": np.float16, "si8": np.int8, "ui8": np.uint8, "si16": np.int16, "ui16": np.uint16,
    "si32": np.int32, "ui32": np.uint32, "si64": np.int64, "i1": np.bool_,
}  # fmt: skip
"""numpy's name of an element type; four-bit types are unpacked to int8 and uint8."""
PACKED = {"si4": np.int8, "ui4": np.uint8}
"""Types of which two share a byte, the low half first."""
PREFIX, BROADCASTING = "coreai.", "decomposable.broadcasting_"


@dataclass(eq=False)
class Value:
    """A tensor between operations.

    Attributes:
        dtype: element type as the file calls it, "f16". shape: all sides.
        producer: the operation that makes it; None for an argument. number: among its results, or among the arguments.

    Operations hold their values, not the other way round: a program's memory goes with its last reference.
    """

    raw: Any
    dtype: str
    shape: tuple[int, ...]
    number: int
    _producer: weakref.ref[Operation] | None
    _users: list[weakref.ref[Operation]] = field(default_factory=list)

    @property
    def producer(self) -> Operation | None:
        return None if self._producer is None else self._producer()

    @property
    def users(self) -> list[Operation]:
        """The operations that read it, in order."""
        return [user for each in self._users if (user := each()) is not None]

    def read_by(self, user: Operation) -> None:
        """Enter an operation among the users."""
        self._users.append(weakref.ref(user))


@dataclass(eq=False)
class Operation:
    """One operation; ``name`` is without prefix: "conv2d", "add". ``label`` is unlike that of any other in its graph."""

    raw: Any
    name: str
    label: str
    operands: tuple[Value, ...] = ()
    results: tuple[Value, ...] = ()

    @property
    def out(self) -> Value:
        return self.results[0]

    def attribute(self, name: str) -> str:
        """An attribute as the file's text has it. Raises KeyError."""
        return str(self.raw.attributes[name])


@dataclass(eq=False)
class Graph:
    """A function, or a private graph that functions invoke.

    Attributes:
        inputs: arguments by name. outputs: results by name, as far as they have one.
    """

    raw: Any
    name: str
    private: bool
    inputs: Mapping[str, Value]
    operations: Sequence[Operation]
    outputs: Mapping[str, Value]


@dataclass(eq=False)
class Program:
    """A module and its graphs by name; ``owner`` is the vendor's program, to be saved."""

    owner: Any
    graphs: Mapping[str, Graph]
    _constants: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def functions(self) -> Mapping[str, Graph]:
        """What can be called from outside."""
        return {name: graph for name, graph in self.graphs.items() if not graph.private}

    def constant(self, value: Value) -> np.ndarray | None:
        """The numbers of a constant, unpacked; None for what is computed. Weights that functions share are read once."""
        op = value.producer
        if op is None or op.name != "constant":
            return None
        resource = resource_name(op.raw)
        key = f"{resource}: {value.dtype} {value.shape}"
        if resource is not None and key in self._constants:
            return self._constants[key]
        numbers = read_constant(op.raw, value.dtype, value.shape)
        if resource is not None:
            self._constants[key] = numbers
        return numbers

    def callee(self, op: Operation) -> Graph:
        """The private graph that an ``invoke`` runs."""
        return self.graphs[callee_name(op.raw)]


def module_of(owner: Any) -> Any:
    """The MLIR module of the vendor's program."""
    return owner._module._mlir_module


def read(owner: Any) -> Program:
    """Every graph of the vendor's program. What is patched afterwards shows only when it is read again."""
    found = (op.operation for op in module_of(owner).body.operations)
    graphs = [_read_graph(op) for op in found if op.name == PREFIX + "graph"]
    return Program(owner, {graph.name: graph for graph in graphs})


def _read_graph(raw: Any) -> Graph:
    block = raw.regions[0].blocks[0]
    known: dict[Any, Value] = {}

    def value(one: Any, producer: Operation | None, number: int) -> Value:
        kind = mlir().RankedTensorType(one.type)
        made_by = None if producer is None else weakref.ref(producer)
        known[one] = Value(one, str(kind.element_type), tuple(kind.shape), number, made_by)
        return known[one]

    arguments = [value(one, None, number) for number, one in enumerate(block.arguments)]
    operations: list[Operation] = []
    outputs: tuple[Value, ...] = ()
    for position, each in enumerate(block.operations):
        op = each.operation
        operands = tuple(known[one] for one in op.operands)
        name = op.name.removeprefix(PREFIX).removeprefix(BROADCASTING)
        if name == "output":
            outputs = operands
            continue
        new = Operation(op, name, f"{name}_{position}", operands)
        new.results = tuple(value(one, new, number) for number, one in enumerate(op.results))
        for operand in dict.fromkeys(operands):
            operand.read_by(new)
        operations.append(new)
    names = [_names(raw, key) for key in ("arg_attrs", "res_attrs")]
    return Graph(
        raw,
        mlir().StringAttr(raw.attributes["sym_name"]).value,
        "priv" in raw.attributes,
        dict(zip(names[0] or map(str, range(len(arguments))), arguments, strict=True)),
        operations,
        dict(zip(names[1] or map(str, range(len(outputs))), outputs, strict=True)),
    )


def _names(raw: Any, key: str) -> list[str]:
    """coreai.name of arguments or results; empty if one has none."""
    found = [mlir().DictAttr(one) for one in mlir().ArrayAttr(raw.attributes[key])] if key in raw.attributes else []
    named = [mlir().StringAttr(one["coreai.name"]).value for one in found if "coreai.name" in one]
    return named if len(named) == len(found) else []


def resource_name(raw: Any) -> str | None:
    """The blob that holds a constant's numbers; None for a small one that stands in the program itself."""
    text = str(raw.attributes["value"])
    return text if text.startswith("dense_resource") else None


def callee_name(raw: Any) -> str:
    """The name of the graph that an ``invoke`` runs."""
    return str(raw.attributes["callee"]).partition("@")[2].partition(">")[0]


def stored_bytes(dtype: str, shape: Sequence[int]) -> int:
    """What a constant takes."""
    size = int(np.prod(shape, dtype=np.int64))
    return (size + 1) // 2 if dtype in PACKED else size * np.dtype(NUMPY[dtype]).itemsize


def read_bytes(raw: Any, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """A constant's bytes as they are stored, uint8."""
    out = np.zeros(stored_bytes(dtype, shape), np.uint8)
    bindings().compiler.copy_constant_value_to_array(constant_op=raw, destination=out)
    return out


def read_constant(raw: Any, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """A constant's numbers, in its shape; four-bit integers as int8 or uint8."""
    stored = read_bytes(raw, dtype, shape)
    if dtype not in PACKED:
        numbers: np.ndarray = stored.view(NUMPY[dtype])
        return numbers.reshape(shape)
    halves = np.stack([stored & 15, stored >> 4], -1).reshape(-1)[: int(np.prod(shape, dtype=np.int64))]
    numbers = halves.astype(PACKED[dtype])
    if dtype == "si4":
        numbers = np.where(numbers > 7, numbers - 16, numbers).astype(np.int8)
    return numbers.reshape(shape)
