"""What a converted program holds, read from its operations: integers, scales, biases, and which ratio applies where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.common.qdq.reading import Found, Operand, Tail, Unreadable, Weight
from dq_toolchain.backends.coreml.graph.operators import OPERATORS
from dq_toolchain.backends.coreml.interpreter.program import Program
from dq_toolchain.backends.coreml.package import PRODUCTS

TABLE = "constexpr_lut_to_dense"
SAME_NUMBERS = ("cast", "slice_by_index", "squeeze", "expand_dims", "reshape", "split")
"""Operations that may stand between the input ``ranges`` and the ratio taken from it."""


def to_tensor(value: Any, dtype: torch.dtype) -> Tensor:
    wide = np.float32 if dtype.is_floating_point else np.int64
    return torch.from_numpy(np.ascontiguousarray(np.asarray(value).astype(wide))).to(dtype)


def has_integer_weights(op: Any) -> bool:
    """Whether the weight of a convolution or linear operation is unpacked from integers."""
    return is_unpacked(op.weight)


def is_unpacked(var: Any) -> bool:
    """Whether a tensor is unpacked from integers."""
    return var.op is not None and str(var.op.op_type).startswith("constexpr")


def read_float(var: Any) -> Tensor | None:
    """The numbers of a float constant, float32; None for what is computed or not there."""
    return None if var is None or var.val is None else to_tensor(var.val, torch.float32)


def read_weight(op: Any) -> Weight:
    """The weight of a convolution or linear operation. Raises Unreadable: it is not one of the integer forms."""
    unpack = op.weight.op
    if not has_integer_weights(op):
        raise Unreadable(f"{op.op_type} {op.name!r} has float weights")
    if unpack.op_type == TABLE and unpack.lut.op is not None:  # the table is scaled, then looked up
        values, scale = _unpacked(unpack.lut.op)
        return Weight(_looked_up(values, unpack), scale, True)
    inner = unpack.inputs.get("data")
    if inner is not None and inner.op is not None and inner.op.op_type == TABLE:  # looked up, then scaled
        return Weight(
            _looked_up(_int8(inner.op.lut.val), inner.op), to_tensor(unpack.scale.val, torch.float32).flatten(), True
        )
    return Weight(*_unpacked(unpack), False)


def _looked_up(values: Tensor, table: Any) -> Tensor:
    return torch.from_numpy(np.take(values.numpy().reshape(-1), np.asarray(table.indices.val).astype(np.uint8)))


def _unpacked(op: Any) -> tuple[Tensor, Tensor]:
    if op.op_type == "constexpr_blockwise_shift_scale" and op.offset is None:
        return _int8(op.data.val), to_tensor(op.scale.val, torch.float32).flatten()
    if op.op_type == "constexpr_affine_dequantize" and not to_tensor(op.zero_point.val, torch.int64).any():
        return _int8(op.quantized_data.val), to_tensor(op.scale.val, torch.float32).flatten()
    raise Unreadable(f"a weight is packed as {op.op_type} {op.name!r}, which this audit cannot read")


def _int8(value: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.asarray(value).astype(np.int8)))


def is_dequantized(var: Any) -> bool:
    return var.op is not None and var.op.op_type == "dequantize"


def read_operand(var: Any) -> Operand:
    """The Q/DQ in front of a product's input. Raises Unreadable: there is none."""
    if not is_dequantized(var) or var.op.input.op is None or var.op.input.op.op_type != "quantize":
        raise Unreadable(f"is not quantized: {'an input' if var.op is None else var.op.op_type} feeds the product")
    quantize = var.op.input.op
    first, second = (
        (float(op.scale.val), 0 if op.zero_point is None else int(op.zero_point.val)) for op in (quantize, var.op)
    )
    source = quantize.input.op
    ratio = ratio_column(source.y) if source is not None and source.op_type == "real_div" else None
    return Operand(str(quantize.name), (first, second), str(quantize.output_dtype.val), ratio)


def ratio_column(var: Any) -> int | None:
    """The column of the input ``ranges`` that a variable holds, None if it is something else."""
    column: int | None = None
    while var.op is not None:
        op = var.op
        if op.op_type not in SAME_NUMBERS:
            return None
        if op.op_type == "slice_by_index":
            column = int(np.asarray(op.begin.val).reshape(-1)[-1])
        elif op.op_type == "split":
            column = list(op.outputs).index(var)
        var = op.x
    return column if var.name == "ranges" else None


def read_tail(op: Any, factors: int, has_ratio: bool, has_bias: bool) -> Tail:
    """Read the operations that multiply the product, ``factors`` times by numbers per channel, and add the bias.

    Raises:
        Unreadable: one of them is not there.
    """
    out, rest, ratio = op.outputs[0], torch.ones(1), None
    bias = None if op.bias is None else op.bias.val
    for _ in range(factors):
        out, factor = _next(out, "mul")
        if factor.val is None:
            raise Unreadable(f"{op.op_type} {op.name!r} is multiplied by what is no constant")
        rest = rest * to_tensor(factor.val, torch.float32).flatten()
    if has_ratio:
        out, ratio = read_ratio(out)
    if (factors or has_ratio) and has_bias:
        out, summand = _next(out, "add")
        bias = summand.val
    half = bias is not None and np.asarray(bias).dtype == np.float16
    return Tail(rest, ratio, None if bias is None else to_tensor(bias, torch.float32).flatten(), half, out)


def read_ratio(var: Any) -> tuple[Any, int | None]:
    """``var`` times a ratio: the result and the column of ``ranges``. Raises Unreadable: it is not multiplied."""
    out, factor = _next(var, "mul")
    return out, ratio_column(factor)


def _next(var: Any, op_type: str) -> tuple[Any, Any]:
    """The result of the only operation that uses ``var``, and its other operand."""
    users = var.child_ops
    if len(users) != 1 or users[0].op_type != op_type:
        raise Unreadable(
            f"{var.op.op_type} {var.op.name!r} is followed by {', '.join(u.op_type for u in users) or 'nothing'}, "
            f"expected {op_type}"
        )
    user = users[0]
    return user.outputs[0], user.y if user.x is var else user.x


class MILReader:
    """``common.qdq.reading.Reader`` of a function's operations, in PyMIL's form."""

    def products(self, program: Program) -> Iterator[Found]:
        for op in program.operations:
            text = f"{op.op_type} {op.name!r}"
            if op.op_type in PRODUCTS:
                yield Found("integer" if has_integer_weights(op) else "float", text, op)
            elif op.op_type == "matmul" and is_dequantized(op.x) and is_dequantized(op.y):
                yield Found("product", text, op)

    def weight(self, op: Any) -> Weight:
        return read_weight(op)

    def lookups(self, program: Program) -> Iterator[Found]:
        for op in program.operations:
            if op.op_type == "gather" and is_unpacked(op.x):
                yield Found("integer", f"{op.op_type} {op.name!r}", op)
            elif op.op_type == "gather" and op.x.val is not None and op.x.rank > 1 and op.x.shape[1] > 1:
                yield Found("float", f"{op.op_type} {op.name!r}", op)

    def rows(self, op: Any) -> Weight:
        return Weight(*_unpacked(op.x.op), False)

    def row_factors(self, op: Any, count: int) -> Tensor:
        out, factors = op.outputs[0], torch.ones(1)
        for _ in range(count):
            out, other = _next(out, "mul")
            if other.op is None or other.op.op_type != "gather" or other.op.x.val is None:
                raise Unreadable(f"{op.op_type} {op.name!r} is multiplied by what is not looked up")
            factors = factors * to_tensor(other.op.x.val, torch.float32).flatten()
        return factors

    def floats(self, op: Any) -> Tensor | None:
        return read_float(op.weight if op.op_type in PRODUCTS else op.x)

    def operand(self, op: Any, number: int = 0) -> Operand:
        return read_operand(op.y if number else op.x)

    def factors(self, scale: Tensor, is_table: bool, half: bool) -> int:
        return len(OPERATORS.scale_and_factors(scale, is_table, half)[1])

    def tail(self, op: Any, factors: int, has_ratio: bool, has_bias: bool) -> Tail:
        return read_tail(op, factors, has_ratio, has_bias)

    def ratio(self, out: Any) -> tuple[Any, int | None]:
        return read_ratio(out)

    def result(self, op: Any) -> Any:
        return op.outputs[0]

    def output(self, tail: Tail) -> Operand:
        users = tail.out.child_ops
        if len(users) != 1 or users[0].op_type != "quantize":
            raise Unreadable("is not quantized")
        return read_operand(users[0].outputs[0].child_ops[0].outputs[0])

    def float_parameters(self, op: Any) -> tuple[Tensor | None, Tensor | None, bool]:
        half = op.weight.val is not None and np.asarray(op.weight.val).dtype == np.float16
        return read_float(op.weight), read_float(op.bias), half
