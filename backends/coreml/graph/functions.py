"""Step groups as functions of one package: the converted function is copied, and each copy gets its group's scales.

Copies refer to the same places in weight.bin, so weights are there once whatever the number of step groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dq_toolchain.backends.common.qdq.export import function_name
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.common.qdq.tags import site_of_tag
from dq_toolchain.backends.coreml.package import load_spec, name_of, operations_of, save_spec, scalar_constant
from dq_toolchain.backends.coreml.vendor import mil_proto, model_proto
from dq_toolchain.toolchain.errors import BackendError

FLOATS = {"FLOAT16": np.float16, "FLOAT32": np.float32}
"""The types that a scale can have in an ML Program."""


def split_into_functions(package: Path, qparams: QParams) -> tuple[str, ...]:
    """Replace the function ``main`` of a tagged package by one function per step group, in place; returns their names.

    Raises:
        BackendError: the program has no place for the numbers: it quantizes somewhere else than at the tensors of
            ``qparams``, or with a scale that is no constant.
    """
    spec = load_spec(package)
    main = spec.mlProgram.functions["main"]
    names = tuple(function_name(g) for g in range(len(qparams.scale)))
    interface = spec.description
    for group, name in enumerate(names):
        function = spec.mlProgram.functions[name]
        function.CopyFrom(main)
        _set_qparams(operations_of(function), qparams, group)
        interface.functions.append(
            model_proto().FunctionDescription(name=name, input=interface.input, output=interface.output)
        )
    del spec.mlProgram.functions["main"], interface.input[:], interface.output[:]
    interface.defaultFunctionName = names[0]
    save_spec(package, spec)
    return names


def _set_qparams(operations: Any, qparams: QParams, group: int) -> None:
    """Give every quantize and dequantize a scale (and zero_point) constant of its own, with the step group's numbers."""
    constants = {op.outputs[0].name: op for op in operations if op.type == "const"}
    changed = []
    sites: dict[str, int] = {}
    for op in operations:
        if op.type in ("quantize", "dequantize"):
            constant = constants.get(op.inputs["scale"].arguments[0].name)
            if constant is None:
                raise BackendError(f"the scale of {name_of(op)} is no constant")
            source = op.inputs["input"].arguments[0].name
            site = sites[source] if op.type == "dequantize" else site_of_tag(_number(constant))
            if not 0 <= site < len(qparams.names):
                raise BackendError(f"the converted program quantizes at {name_of(op)}, which is no site")
            sites[op.outputs[0].name] = site
            changed.extend(_own_constants(op, constant, *qparams.at(group, site)))
        changed.append(op)
    copies = [type(op).FromString(op.SerializeToString()) for op in _without_equal_constants(changed)]
    del operations[:]
    operations.extend(copies)


def _without_equal_constants(operations: list[Any]) -> Iterator[Any]:
    """Each constant once, and only if it is used: every function repeats them, and they are half of its size."""
    used = {a.name for op in operations for value in op.inputs.values() for a in value.arguments if a.name}
    first: dict[bytes, str] = {}
    instead: dict[str, str] = {}
    for op in operations:
        if op.type == "const":
            name = op.outputs[0].name
            if name not in used:
                continue
            value = op.attributes["val"].SerializeToString(deterministic=True)
            instead[name] = first.setdefault(value, name)
            if instead[name] != name:
                continue
        for value in op.inputs.values():
            for argument in value.arguments:
                if argument.name in instead:  # assigning would turn an inline value into a name
                    argument.name = instead[argument.name]
        yield op


def _own_constants(op: Any, constant: Any, scale: float, zero_point: int) -> list[Any]:
    """Operations to put before ``op``, which is changed to use them."""
    dtype, name = _dtype(constant), name_of(op)
    own = [scalar_constant(f"{name}_scale", dtype, np.array(scale, FLOATS[dtype]).tobytes())]
    op.inputs["scale"].arguments[0].name = f"{name}_scale"
    if zero_point != 0:
        own.append(scalar_constant(f"{name}_zero_point", "INT8", np.array(zero_point, np.int8).tobytes()))
        op.inputs["zero_point"].arguments.add().name = f"{name}_zero_point"
    return own


def _dtype(constant: Any) -> str:
    kind = constant.outputs[0].type.tensorType.dataType
    return next(name for name in FLOATS if mil_proto().DataType.Value(name) == kind)


def _number(constant: Any) -> float:
    tensor = constant.attributes["val"].immediateValue.tensor
    if _dtype(constant) == "FLOAT16":
        return float(np.frombuffer(tensor.bytes.values, np.float16)[0])
    return float(tensor.floats.values[0])
