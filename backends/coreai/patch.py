"""Changes to the operations of an .aimodel. Beside ``ir.py`` the only file with private names of coreai-core.

Each function takes the vendor's program; read it again (``ir.read``) to see what changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dq_toolchain.backends.coreai.ir import (
    PREFIX,
    Graph,
    Operation,
    Program,
    callee_name,
    module_of,
    read,
    read_bytes,
    resource_name,
)
from dq_toolchain.backends.coreai.vendor import debug_info, dialect, mlir
from dq_toolchain.toolchain.errors import BackendError

QDQ = ("quantize", "dequantize")
Numbers = Callable[[int], tuple[float, int]]
"""Column of ``QParams`` -> scale and zero_point."""
ALIGNMENT = 16
"""Bytes; of the blobs of weights in a file, as Apple's converter has it. A file below 16 KB is read into memory that is aligned
to no more, and where the blobs want more the reader aborts the process, or does not, by chance."""


def number(value: float, dtype: str) -> Any:
    """A new 0-dim constant at the present insertion point. ``dtype``: "f16", "f32" or "si8"."""
    ir = mlir()
    if dtype.startswith("f"):
        element: Any = {"f16": ir.F16Type, "f32": ir.F32Type}[dtype].get()
        attribute = ir.FloatAttr.get(element, float(value))
    else:
        element = ir.IntegerType.get_signed(8)
        attribute = ir.IntegerAttr.get(element, int(value))
    splat = ir.DenseElementsAttr.get_splat(ir.RankedTensorType.get([], element), attribute)
    return dialect().ConstantOp(value=splat).result


def multiply_function(program: Program, name: str, columns: Mapping[str, int], groups: Mapping[str, Numbers]) -> None:
    """Replace a function by copies of it, one per step group, in which every Q/DQ has the group's numbers.

    Args:
        columns: label of a quantize or dequantize -> column of ``QParams``.
        groups: names of the copies -> their numbers.
    """
    ir, graph = mlir(), program.functions[name]
    module = module_of(program.owner)
    labels = [op.label for op in graph.operations if op.name in QDQ]
    dtypes = {op.label: (op.operands[1].dtype, op.operands[2].dtype) for op in graph.operations if op.name in QDQ}
    with module.context, ir.Location.unknown():
        for new_name, numbers in groups.items():
            copy = graph.raw.clone(ir.InsertionPoint(module.body))
            copy.attributes["sym_name"] = ir.StringAttr.get(new_name)
            block = copy.regions[0].blocks[0]
            made: dict[tuple[float, str], Any] = {}

            def constant(value: float, dtype: str, made: dict[tuple[float, str], Any] = made) -> Any:
                if (value, dtype) not in made:
                    made[value, dtype] = number(value, dtype)
                return made[value, dtype]

            found = [op.operation for op in block.operations if op.operation.name in (PREFIX + one for one in QDQ)]
            with ir.InsertionPoint.at_block_begin(block):
                for label, op in zip(labels, found, strict=True):
                    scale, zero_point = numbers(columns[label])
                    of_scale, of_zero_point = dtypes[label]
                    op.operands[1] = constant(scale, of_scale)
                    op.operands[2] = constant(zero_point, of_zero_point)
        graph.raw.erase()
    _verify(module)


def expose(program: Program, name: str, quantized: Sequence[Operation], suffix: str) -> None:
    """Give a function, for each quantize operation, its result as an output, and what is used instead of it as an input.

    They are called LABEL + ``suffix``; the inputs come last, in the order of ``quantized``.
    """
    ir, graph = mlir(), program.functions[name]
    module = module_of(program.owner)
    with module.context, ir.Location.unknown():
        raw, block = graph.raw, graph.raw.regions[0].blocks[0]
        kind = ir.FunctionType(ir.TypeAttr(raw.attributes["function_type"]).value)
        results = [op.raw.results[0] for op in quantized]
        given = [block.add_argument(result.type, ir.Location.unknown()) for result in results]
        for op, argument in zip(quantized, given, strict=True):
            for user in op.out.users:
                for position, operand in enumerate(user.operands):
                    if operand is op.out:
                        user.raw.operands[position] = argument
        types = [result.type for result in results]
        whole = ir.FunctionType.get(list(kind.inputs) + types, list(kind.results) + types)
        raw.attributes["function_type"] = ir.TypeAttr.get(whole)
        names = [ir.DictAttr.get({"coreai.name": ir.StringAttr.get(op.label + suffix)}) for op in quantized]
        for key in ("arg_attrs", "res_attrs"):
            raw.attributes[key] = ir.ArrayAttr.get(list(ir.ArrayAttr(raw.attributes[key])) + names)
        last = list(block.operations)[-1].operation
        with ir.InsertionPoint(last):
            ir.Operation.create(PREFIX + "output", operands=list(last.operands) + results)
        last.erase()
    _verify(module)


def keep_only(program: Program, name: str) -> None:
    """Remove the other functions: lowering for execution takes time with the size of the file."""
    for other, graph in program.functions.items():
        if other != name:
            graph.raw.erase()


def canonical(owner: Any, known: Iterable[np.ndarray] = ()) -> None:
    """Names and order that depend on the program alone: the converter's own are random, and differ from run to run.

    Private graphs and blobs are named in the order of their first use; equal blobs become one. Debug information goes.

    Args:
        known: numbers that are in memory anyway, such as an artifact's weights: blobs of the same bytes use theirs, and
            are not copied.
    """
    ir, module = mlir(), module_of(owner)
    _strip_locations(module)
    program = read(owner)
    with module.context:
        calls = [op for graph in program.functions.values() for op in _calls(program, graph)]
        named: dict[str, str] = {}
        counts: dict[str, int] = {}
        for old in (callee_name(op.raw) for op in calls):
            if old not in named:
                base = re.sub(r"_[a-z]{8}$", "", old)
                counts[base] = counts.get(base, -1) + 1
                named[old] = f"{base}_{counts[base]}"
        for op in calls:
            new = named[callee_name(op.raw)]
            op.raw.attributes["callee"] = ir.Attribute.parse(f"#param.constant<@{new}> : !param.symbol")
        for old, new in named.items():
            graph = program.graphs[old].raw
            graph.attributes["sym_name"] = ir.StringAttr.get(new)
            graph.move_before(next(iter(program.functions.values())).raw)
        for old, graph in program.graphs.items():
            if graph.private and old not in named:
                graph.raw.erase()
        _rename_blobs(program, known)
    _verify(module)


def _strip_locations(module: Any) -> None:
    """One location for everything. Apple's ``strip_debug_info`` numbers the operations, which is a third of a function's bytes."""
    debug, ir = debug_info(), mlir()
    context = module.operation.context
    nowhere = debug._create_unknown_location(ir.Location.file(filename="", line=0, col=0, context=context), context)
    for op in (module.operation, *debug._get_nested_operations(module.operation)):
        debug.set_op_location(op, nowhere)
        for block in (block for region in op.regions for block in region):
            for argument in block.arguments:
                debug.set_block_arg_location(argument, nowhere)


def _calls(program: Program, graph: Graph) -> list[Operation]:
    """Every ``invoke``, those of invoked graphs after their own."""
    found = []
    for op in graph.operations:
        if op.name == "invoke":
            found += [op, *_calls(program, program.callee(op))]
    return list(dict.fromkeys(found))


def _rename_blobs(program: Program, known: Iterable[np.ndarray]) -> None:
    ir = mlir()
    aligned = (each for each in known if each.flags.c_contiguous and each.ctypes.data % ALIGNMENT == 0)
    buffers = {digest(each): each for each in aligned}
    by_content: dict[tuple[bytes, str], Any] = {}
    by_name: dict[str, Any] = {}
    for graph in program.graphs.values():
        for op in graph.operations:
            old = resource_name(op.raw) if op.name == "constant" else None
            if old is None:
                continue
            if old not in by_name:
                stored = read_bytes(op.raw, op.out.dtype, op.out.shape)
                content = digest(stored)
                key = (content, str(op.out.raw.type))
                if key not in by_content:
                    blob = ir.DenseResourceElementsAttr.get_from_buffer(
                        buffers.get(content, stored), f"blob_{len(by_content)}", op.out.raw.type, alignment=ALIGNMENT
                    )
                    by_content[key] = blob
                by_name[old] = by_content[key]
            op.raw.attributes["value"] = by_name[old]


def digest(stored: Any) -> bytes:
    """What blobs are told apart by."""
    return hashlib.sha256(stored.tobytes()).digest()


def _verify(module: Any) -> None:
    if not module.operation.verify():
        raise BackendError("the patched program is not one that Core AI accepts; report it with calibration.json")
