"""What a program holds, read from its operations: integers, scales, biases, and where a scale comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.common.qdq.reading import Column, Found, Numbers, Operand, Tail, Unreadable, Weight
from dq_toolchain.backends.coreai.graph.operators import LOWEST, CoreAIOperators
from dq_toolchain.backends.coreai.ir import Graph, Operation, Program, Value

SAME_NUMBERS = ("reshape", "transpose", "pad", "slice", "split", "cast", "expand_dims", "shrink_dims", "broadcast_to")
"""Operations that move numbers, or put zeros beside them."""
PRODUCTS = ("conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d", "batch_matmul")
UNPACKED = "blockwise_shift_scale"
TABLE = "lut_to_dense"
LOOKUP = "gather_nd"


@dataclass(frozen=True)
class Product:
    """An operation that multiplies, within its program."""

    program: Program
    op: Operation


def source(value: Value, through: tuple[str, ...] = SAME_NUMBERS) -> Operation | None:
    """The operation whose numbers these are, whatever moved them; None for an argument."""
    while value.producer is not None and value.producer.name in through:
        value = value.producer.operands[0]
    return value.producer


def _is_operand(value: Value) -> bool:
    """It is quantized for this product; the quantized output of a layer is split into heads on the way to one."""
    maker = source(value, ("reshape", "expand_dims", "shrink_dims"))
    return maker is not None and maker.name == "dequantize"


def to_float(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers.astype(np.float32)))


class CoreAIReader:
    """``common.qdq.reading.Reader`` of a function's operations."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def products(self, program: Graph) -> Iterator[Found]:
        for op in program.operations:
            if op.name not in PRODUCTS:
                continue
            unpacked = source(op.operands[1])
            kinds = [None if one is None else one.name for one in (source(op.operands[0]), unpacked)]
            if kinds[1] == UNPACKED:
                yield Found("integer", op.label, op)
            elif kinds[1] == "constant":
                yield Found("float", op.label, op)
            elif all(_is_operand(one) for one in op.operands[:2]):
                yield Found("product", op.label, op)

    def weight(self, op: Operation) -> Weight:
        unpack = source(op.operands[1])
        assert unpack is not None
        return self._unpacked(op, unpack)

    def lookups(self, program: Graph) -> Iterator[Found]:
        for op in program.operations:
            table = source(op.operands[0]) if op.name == LOOKUP else None
            if table is not None and table.name == UNPACKED:
                yield Found("integer", op.label, op)
            elif table is not None and table.name == "constant" and table.out.shape[1:] not in ((), (1,)):
                yield Found("float", op.label, op)

    def rows(self, op: Operation) -> Weight:
        unpack = source(op.operands[0])
        assert unpack is not None
        return self._unpacked(op, unpack)

    def row_factors(self, op: Operation, count: int) -> Tensor:
        out, factors = op.out, torch.ones(1)
        for _ in range(count):
            out, other = self._next(out, "mul")
            lookup = source(other)
            if lookup is None or lookup.name != LOOKUP:
                raise Unreadable(f"{op.label} is multiplied by what is not looked up")
            numbers = self._constant(lookup.operands[0], f"a factor of {op.label}")
            factors = factors * to_float(numbers).flatten()
        return factors

    def floats(self, op: Operation) -> Tensor | None:
        held = source(op.operands[0 if op.name == LOOKUP else 1])
        return None if held is None else to_float(self._constant(held.out, f"the weight of {op.label}"))

    def _unpacked(self, op: Operation, unpack: Operation) -> Weight:
        data, scale, *offsets = unpack.operands
        scales = self._constant(scale, f"the weight scale of {op.label}")
        if any(np.any(self._constant(one, f"an offset of {op.label}")) for one in offsets):
            raise Unreadable(f"{op.label} has weights with an offset")
        if scales.size not in (1, scales.shape[0]):
            raise Unreadable(f"{op.label} has a weight scale per block")
        table = data.producer
        if table is not None and table.name == TABLE:
            indices, values = (self._constant(one, f"the table of {op.label}") for one in table.operands[:2])
            integers, is_table = np.take(values.reshape(-1), indices.astype(np.int64)), True
        else:
            integers, is_table = self._constant(data, f"the weight of {op.label}"), False
        return Weight(
            torch.from_numpy(np.ascontiguousarray(integers.astype(np.int8))), to_float(scales).flatten(), is_table
        )

    def operand(self, op: Operation, number: int = 0) -> Operand:
        return self._operand(source(op.operands[number]))

    def _operand(self, dequantize: Operation | None) -> Operand:
        quantize = None if dequantize is None else dequantize.operands[0].producer
        if dequantize is None or dequantize.name != "dequantize" or quantize is None or quantize.name != "quantize":
            raise Unreadable(
                f"is not quantized: {'an input' if dequantize is None else dequantize.name} feeds the product"
            )
        dtype = {"si8": "int8", "ui8": "uint8"}.get(quantize.out.dtype, quantize.out.dtype)
        return Operand(quantize.label, (self._numbers(quantize), self._numbers(dequantize)), dtype, None)

    def _numbers(self, op: Operation) -> Numbers:
        _, scale, zero_point, second, _axis = op.operands
        if np.any(self._constant(second, f"the second offset of {op.label}")):
            raise Unreadable(f"{op.label} has a second offset")
        zero = int(self._constant(zero_point, f"the zero_point of {op.label}"))
        if (number := self.program.constant(scale)) is not None:
            return float(number), zero
        column = self._column(scale)
        if column is None:
            raise Unreadable(f"the scale of {op.label} is computed")
        return column, zero

    def _column(self, value: Value) -> Column | None:
        """The column of the input ``ranges`` that a value is."""
        column = 0
        while value.producer is not None:
            op = value.producer
            if op.name not in SAME_NUMBERS:
                return None
            if op.name == "slice":
                column += int(self._constant(op.operands[1], "a slice").reshape(-1)[-1])
            elif op.name == "split":
                sizes = self._constant(op.operands[1], "a split").reshape(-1)
                column += int(sizes[: value.number].sum())
            value = op.operands[0]
        graph = next(one for one in self.program.functions.values() if value in one.inputs.values())
        return Column(column) if graph.inputs.get("ranges") is value else None

    def factors(self, scale: Tensor, is_table: bool, half: bool) -> int:
        return len(CoreAIOperators(half).scale_and_factors(scale, is_table, half)[1])

    def tail(self, op: Operation, factors: int, has_ratio: bool, has_bias: bool) -> Tail:
        out, rest, bias, half = op.out, torch.ones(1), None, False
        for each in range(factors):
            if each > 0:
                out, lowest = self._next(out, "maximum")
                if np.any(self._constant(lowest, f"the bound of {op.label}") > LOWEST):
                    raise Unreadable(f"{op.label} is cut off between its factors")
            out, factor = self._next(out, "mul")
            rest = rest * to_float(self._constant(factor, f"a factor of {op.label}")).flatten()
        moved = self._moved(out)
        if has_bias and len(moved.users) > 1:
            return Tail(rest, None, None, op.out.dtype == "f16", moved, self._sums(op, moved))
        if has_bias:
            out, summand = self._next(out, "add")
            bias = to_float(self._constant(summand, f"the bias of {op.label}")).flatten()
            half = summand.dtype == "f16"
        return Tail(rest, None, bias, half, out)

    def _sums(self, op: Operation, value: Value) -> tuple[Tensor, ...]:
        """The constants that are added to a product of several users: coreai-torch adds up what is added in a row."""
        found = []
        for user in value.users:
            if user.name != "add":
                raise Unreadable(f"{op.label} is followed by {user.name}, expected add")
            other = next(one for one in user.operands if one is not value)
            found.append(to_float(self._constant(other, f"the bias of {op.label}")).flatten())
        return tuple(found)

    def ratio(self, out: Value) -> tuple[Value, int | None]:
        raise Unreadable("no program of this target has ratios")

    def result(self, op: Operation) -> Value:
        return op.out

    def output(self, tail: Tail) -> Operand:
        out = self._moved(tail.out)
        if len(out.users) != 1 or out.users[0].name != "quantize":
            raise Unreadable("is not quantized")
        (dequantize,) = out.users[0].out.users
        return self._operand(dequantize)

    def float_parameters(self, op: Operation) -> tuple[Tensor | None, Tensor | None, bool]:
        weight = source(op.operands[1])
        assert weight is not None
        numbers = self._constant(weight.out, f"the weight of {op.label}")
        bias, out = None, self._moved(op.out)
        if len(out.users) == 1 and out.users[0].name == "add":
            summand = next(one for one in out.users[0].operands if one is not out)
            found = source(summand)
            if found is not None and found.name == "constant":
                bias = to_float(self._constant(found.out, "a bias")).flatten()
        return to_float(numbers), bias, weight.out.dtype == "f16"

    def _constant(self, value: Value, what: str) -> np.ndarray:
        found = source(value, ("reshape", "transpose", "broadcast_to"))
        numbers = None if found is None else self.program.constant(found.out)
        if numbers is None:
            raise Unreadable(f"{what} is no constant")
        return numbers

    @staticmethod
    def _moved(value: Value) -> Value:
        """The value after operations that only reshape it."""
        while len(value.users) == 1 and value.users[0].name in ("reshape", "expand_dims", "shrink_dims"):
            value = value.users[0].out
        return value

    def _next(self, value: Value, name: str) -> tuple[Value, Value]:
        """The result of the only operation that uses ``value``, and its other operand."""
        value = self._moved(value)
        if len(value.users) != 1 or value.users[0].name != name:
            followers = ", ".join(user.name for user in value.users) or "nothing"
            maker = "an input" if value.producer is None else value.producer.label
            raise Unreadable(f"{maker} is followed by {followers}, expected {name}")
        user = value.users[0]
        return user.out, next(one for one in user.operands if one is not value)
