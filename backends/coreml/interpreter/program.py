"""Executes the functions of an .mlpackage in torch, operation by operation, on any machine.

Every result is rounded to the type that the program declares for it; sums inside one operation are float64. Core ML
itself promises neither the order nor the width of its sums, so this is a reference for what the program *says*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels import declared
from dq_toolchain.backends.common.kernels.lifetimes import last_uses
from dq_toolchain.backends.coreml.interpreter import elementwise, products, quantization, shapes  # noqa: F401
from dq_toolchain.backends.coreml.interpreter.registry import OPERATIONS
from dq_toolchain.backends.coreml.package import WEIGHTS, load_spec
from dq_toolchain.backends.coreml.vendor import restore_program, type_name
from dq_toolchain.toolchain.errors import BackendError

DTYPES = {
    "fp32": torch.float32, "fp16": torch.float16, "bool": torch.bool, "int32": torch.int32, "int16": torch.int16,
    "uint16": torch.int32, "int8": torch.int8, "uint8": torch.uint8, "int4": torch.int8, "uint4": torch.uint8,
}  # fmt: skip
"""What values of a declared type are rounded to."""

SMALL = 2**16
"""Constants of at most so many elements are kept in torch's form from call to call."""

Watch = Callable[[Any, Tensor], Tensor]
"""(operation, its result) -> the value to go on with; sees the first result of every operation."""


class Program(Protocol):
    """What can be audited and executed: a function, or chunks of one that follow each other."""

    @property
    def name(self) -> str: ...

    @property
    def operations(self) -> Sequence[Any]:
        """In PyMIL's form, in order of execution."""

    def __call__(self, inputs: Mapping[str, Tensor], watch: Watch | None = None) -> dict[str, Tensor]: ...


class Function:
    """One function of a package, ready to be called.

    Attributes:
        operations: in PyMIL's form, in order of execution.
    """

    def __init__(self, name: str, function: Any) -> None:
        self.name = name
        self.operations: Sequence[Any] = [op for op in function.operations if op.op_type != "const"]
        self._inputs, self._outputs = function.inputs, function.outputs
        unknown = sorted({op.op_type for op in self.operations} - set(OPERATIONS))
        if unknown:
            raise BackendError(
                f"function {name!r} holds operations that the interpreter does not know: "
                f"{', '.join(unknown)}; report it with calibration.json"
            )
        self._constants: dict[Any, Any] = {}
        self._dead = last_uses([_variables(op) for op in self.operations], self._outputs)

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor], watch: Watch | None = None) -> dict[str, Tensor]:
        """Outputs by name, float32 or integer.

        Raises:
            BackendError: an operation fails; the text names it.
        """
        values: dict[Any, Any] = {
            var: as_declared(inputs[name].reshape(var.shape), type_name(var.dtype))
            for name, var in self._inputs.items()
        }
        for op, dead in zip(self.operations, self._dead, strict=True):
            if _unpacks(op):
                continue
            for var, result in zip(op.outputs, self._results(op, values), strict=True):
                value = as_declared(result, type_name(var.dtype))
                if watch is not None and var is op.outputs[0]:
                    value = watch(op, value)
                values[var] = value
            for var in dead:
                values.pop(var, None)
        return {var.name: values[var] for var in self._outputs}

    def _results(self, op: Any, values: Mapping[Any, Any]) -> tuple[Tensor, ...]:
        return _execute(op, {key: self._value(var, values) for key, var in op.inputs.items() if var is not None})

    def _value(self, var: Any, values: Mapping[Any, Any]) -> Any:
        """Of a variable or a constant. Weights are unpacked where they are used and not kept: they would fill the memory."""
        if isinstance(var, list | tuple):
            return [self._value(one, values) for one in var]
        if var in values:
            return values[var]
        if var.op is not None and _unpacks(var.op):
            return as_declared(self._results(var.op, values)[0], type_name(var.dtype))
        if var in self._constants:
            return self._constants[var]
        value = _constant(var)
        if not isinstance(value, Tensor) or value.numel() <= SMALL:
            self._constants[var] = value
        return value


def _unpacks(op: Any) -> bool:
    return bool(op.op_type.startswith("constexpr"))


def _variables(op: Any) -> list[Any]:
    found = []
    for value in op.inputs.values():
        found += list(value) if isinstance(value, list | tuple) else [value]
    return [var for var in found if var is not None]


def _execute(op: Any, keywords: Mapping[str, Any]) -> tuple[Tensor, ...]:
    try:
        result = OPERATIONS[op.op_type](**keywords)
    except (RuntimeError, NotImplementedError, TypeError, KeyError, ValueError) as error:
        raise BackendError(
            f"the interpreter cannot execute {op.op_type} {op.name!r}: {' '.join(str(error).split())[:200]}; "
            "report it with calibration.json"
        ) from error
    results = result if isinstance(result, tuple) else (result,)
    for var, one in zip(op.outputs, results, strict=True):
        if tuple(one.shape) != tuple(var.shape):
            raise BackendError(
                f"{op.op_type} {op.name!r} gives {tuple(one.shape)}, its program declares "
                f"{tuple(var.shape)}; report it with calibration.json"
            )
    return results


def as_declared(value: Tensor, dtype: str) -> Tensor:
    """A value as the program's type holds it. Raises BackendError: a type that is not in ``DTYPES``."""
    if dtype not in DTYPES:
        raise BackendError(f"the interpreter of Core ML programs does not know the type {dtype}; report it")
    return declared.as_declared(value, DTYPES[dtype])


def _constant(var: Any) -> Any:
    value = var.val
    if isinstance(value, str | bool):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "US":
        return str(array)
    if array.dtype.itemsize == 1 and array.dtype.kind in "iu":
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.str)))
    wide = {"f": np.float32, "i": np.int64, "u": np.int64, "b": np.bool_}.get(array.dtype.kind, np.int64)
    return torch.from_numpy(np.ascontiguousarray(array.astype(wide)))


class Chunks:
    """The same function of several packages, each fed the inputs of the whole and the outputs of those before it."""

    def __init__(self, parts: Sequence[Function]) -> None:
        self.name, self.parts = parts[0].name, tuple(parts)

    @property
    def operations(self) -> Sequence[Any]:
        return [op for part in self.parts for op in part.operations]

    def __call__(self, inputs: Mapping[str, Tensor], watch: Watch | None = None) -> dict[str, Tensor]:
        values, out = dict(inputs), {}
        for part in self.parts:
            out = part(values, watch)
            values |= out
        return out


def load(*packages: Path) -> dict[str, Program]:
    """Every function by name, of one package or of the chunks of one.

    Raises:
        BackendError: it holds an operation that the interpreter does not know; the text names it.
    """
    found = [restore_program(load_spec(package), str(package / WEIGHTS)).functions for package in packages]
    parts = {name: [Function(name, functions[name]) for functions in found] for name in found[0]}
    return {name: one[0] if len(one) == 1 else Chunks(one) for name, one in parts.items()}
