"""Executes a function of an .aimodel in torch, operation by operation, on any machine.

Every result is rounded to the type that the program declares for it; sums inside one operation are float64, as in the
interpreter of the other target of Apple's, whose kernels these are. Checked against Apple's own interpreter, operation by
operation and on whole small networks; it is there for networks that Apple's takes too long for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels.declared import as_declared
from dq_toolchain.backends.common.kernels.lifetimes import last_uses
from dq_toolchain.backends.common.kernels.parts import Parts
from dq_toolchain.backends.coreai.evaluator import elementwise, moves, products, quantization  # noqa: F401
from dq_toolchain.backends.coreai.evaluator.registry import DTYPES, OPERATIONS, unknown
from dq_toolchain.backends.coreai.ir import Graph, Operation, Program, Value, read_constant
from dq_toolchain.toolchain.errors import BackendError

SMALL = 2**16
"""Constants of at most so many elements are kept in torch's form from call to call."""
INVOKE, CONSTANT, QUANTIZE = "invoke", "constant", "quantize"
Watch = Callable[[Operation, Tensor], Tensor]
"""(operation, its result) -> the value to go on with; sees the first result of every operation of the function itself."""


class Function:
    """One function of a program, or a private graph that functions invoke, ready to be called.

    Attributes:
        kept: small constants, and small tensors that depend on constants alone, in torch's form from call to call.
    """

    def __init__(self, program: Program, graph: Graph, invoked: dict[str, Function] | None = None) -> None:
        """``invoked``: private graphs by name, shared by the functions of a program.

        Raises:
            BackendError: the function, or a graph that it invokes, holds an operation that is not known; the text names it.
        """
        self.program, self.graph = program, graph
        self._invoked: dict[str, Function] = {} if invoked is None else invoked
        self._from_constants = _from_constants(graph)
        self._operations = [op for op in graph.operations if op.out not in self._from_constants]
        _refuse_unknown(graph)
        for op in graph.operations:
            if op.name == INVOKE and (callee := program.callee(op)).name not in self._invoked:
                self._invoked[callee.name] = Function(program, callee, self._invoked)
        self._dead = last_uses([op.operands for op in self._operations], set(graph.outputs.values()))
        self.kept: dict[Value, Tensor] = {}

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor], watch: Watch | None = None) -> dict[str, Tensor]:
        """Outputs by name, float32 or integer.

        Raises:
            BackendError: an operation fails; the text names it.
        """
        values = {
            value: as_declared(inputs[name].reshape(value.shape), _dtype(value))
            for name, value in self.graph.inputs.items()
        }
        for op, dead in zip(self._operations, self._dead, strict=True):
            results = self._results(op, values)
            if watch is not None:
                results = (as_declared(watch(op, results[0]), _dtype(op.out)), *results[1:])
            values.update(zip(op.results, results, strict=True))
            for value in dead:
                values.pop(value, None)
        return {name: self._value(value, values) for name, value in self.graph.outputs.items()}

    def _results(self, op: Operation, values: Mapping[Value, Tensor]) -> tuple[Tensor, ...]:
        """Rounded to their declared types."""
        operands = [self._value(value, values) for value in op.operands]
        if op.name == INVOKE:
            callee = self._invoked[self.program.callee(op).name]
            return tuple(callee(dict(zip(callee.graph.inputs, operands, strict=True))).values())
        return _execute(op, operands)

    def _value(self, value: Value, values: Mapping[Value, Tensor]) -> Tensor:
        """Of an operand. What depends on constants alone is unpacked where it is used; of that only small tensors are kept."""
        if value in values:
            return values[value]
        if value in self.kept:
            return self.kept[value]
        op = value.producer
        assert op is not None
        found = self._constant(value) if op.name == CONSTANT else self._results(op, values)[value.number]
        if found.numel() <= SMALL:
            self.kept[value] = found
        return found

    @staticmethod
    def _constant(value: Value) -> Tensor:
        """Not through ``Program.constant``, which keeps what it has read."""
        assert value.producer is not None
        numbers = read_constant(value.producer.raw, value.dtype, value.shape)
        return as_declared(torch.from_numpy(np.ascontiguousarray(numbers)), _dtype(value))


def _from_constants(graph: Graph) -> set[Value]:
    """Values that depend on constants alone. A quantize among them is executed in its place all the same: it may be watched."""
    found: set[Value] = set()
    for op in graph.operations:
        if op.name not in (QUANTIZE, INVOKE) and all(operand in found for operand in op.operands):
            found.update(op.results)
    return found


def _refuse_unknown(graph: Graph) -> None:
    names = {unknown(op) for op in graph.operations if op.name not in (INVOKE, CONSTANT)} - {None}
    types = {value.dtype for value in _values(graph)} - DTYPES.keys()
    found = sorted(map(str, names)) + [f"type {name}" for name in sorted(types)]
    if found:
        raise BackendError(
            f"{graph.name!r} holds operations that the evaluator does not know: {', '.join(found)}; "
            "report it with calibration.json"
        )


def _values(graph: Graph) -> Iterable[Value]:
    yield from graph.inputs.values()
    for op in graph.operations:
        yield from op.results


def _dtype(value: Value) -> torch.dtype:
    return DTYPES[value.dtype]


def _execute(op: Operation, operands: list[Tensor]) -> tuple[Tensor, ...]:
    try:
        result = OPERATIONS[op.name](op, *operands)
        results = result if isinstance(result, tuple) else (result,)
        rounded = tuple(_rounded(one, value) for one, value in zip(results, op.results, strict=True))
    except (RuntimeError, NotImplementedError, TypeError, KeyError, ValueError, IndexError) as error:
        raise BackendError(
            f"the evaluator cannot execute {op.label}: {' '.join(str(error).split())[:200]}; "
            "report it with calibration.json"
        ) from error
    for value, one in zip(op.results, rounded, strict=True):
        if not _fits(one.shape, value.shape):
            raise BackendError(
                f"{op.label} gives {tuple(one.shape)}, its program declares {value.shape}; "
                "report it with calibration.json"
            )
    return rounded


def _rounded(result: Tensor | Parts, value: Value) -> Tensor:
    dtype = _dtype(value)
    return result.joined(dtype) if isinstance(result, Parts) else as_declared(result, dtype)


def _fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    """A side below zero is one that the program computes: the converter writes poolings so."""
    return len(shape) == len(declared) and all(b < 0 or a == b for a, b in zip(shape, declared, strict=True))


def functions(program: Program, names: Collection[str] | None = None) -> dict[str, Function]:
    """Functions by name; all of them where none are named. Raises BackendError: see ``Function``."""
    invoked: dict[str, Function] = {}
    wanted = program.functions if names is None else names
    return {name: Function(program, program.functions[name], invoked) for name in wanted}
