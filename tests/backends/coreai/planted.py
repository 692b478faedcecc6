"""Faults in the file of an asset: its program is loaded, changed and saved, hash and all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dq_toolchain.backends.coreai.asset import load, save
from dq_toolchain.backends.coreai.ir import NUMPY, PACKED, Operation, Program, module_of
from dq_toolchain.backends.coreai.patch import ALIGNMENT, number
from dq_toolchain.backends.coreai.proof.reading import PRODUCTS, source
from dq_toolchain.backends.coreai.vendor import dialect, mlir
from tests.backends.coreai.conftest import Converted

Change = Callable[[Program], None]


def planted(asset: Path, folder: Path, change: Change) -> Path:
    """A changed copy of an asset."""
    program = load(asset)
    with module_of(program.owner).context, mlir().Location.unknown():
        change(program)
    folder.mkdir(exist_ok=True)
    save(program.owner, folder / "model.aimodel")
    return folder / "model.aimodel"


def operand(op: Operation, position: int, value: float, dtype: str) -> None:
    """Give an operation another number than the one that others use with it."""
    with mlir().InsertionPoint(op.raw):
        op.raw.operands[position] = number(value, dtype)


def blob(numbers: np.ndarray, dtype: str, name: str) -> Any:
    """The attribute of a constant whose numbers are a blob; uint8 numbers are the bytes of four-bit ones."""
    ir = mlir()
    elements: Mapping[str, Callable[[], Any]] = {
        "f32": ir.F32Type.get,
        "f16": ir.F16Type.get,
        "i1": lambda: ir.IntegerType.get_signless(1),
        **{f"si{bits}": functools.partial(ir.IntegerType.get_signed, bits) for bits in (4, 8, 16, 32, 64)},
        **{f"ui{bits}": functools.partial(ir.IntegerType.get_unsigned, bits) for bits in (4, 8, 16, 32)},
    }
    kind = ir.RankedTensorType.get(list(numbers.shape), elements[dtype]())
    stored = packed(numbers) if dtype in PACKED else np.ascontiguousarray(numbers, NUMPY[dtype]).view(np.uint8)
    return ir.DenseResourceElementsAttr.get_from_buffer(stored.reshape(-1), name, kind, alignment=ALIGNMENT)


def packed(numbers: np.ndarray) -> np.ndarray:
    """Four-bit integers, two in a byte, the low half first."""
    halves = np.append(numbers.reshape(-1).astype(np.int8), np.zeros(numbers.size % 2, np.int8)).view(np.uint8) & 15
    return halves[0::2] | halves[1::2] << 4


def replaced(op: Operation, numbers: np.ndarray, name: str = "planted") -> None:
    """Other numbers in the place of a constant's, for all that use it."""
    op.raw.attributes["value"] = blob(numbers.reshape(op.out.shape), op.out.dtype, name)


def new_constant(numbers: np.ndarray, dtype: str, before: Operation, name: str) -> Any:
    """A constant in front of an operation."""
    with mlir().InsertionPoint(before.raw):
        return dialect().ConstantOp(value=blob(numbers, dtype, name)).result


def constant_of(op: Operation, position: int) -> Operation:
    """The constant that an operand is."""
    maker = op.operands[position].producer
    assert maker is not None
    assert maker.name == "constant"
    return maker


class Place:
    """The operations of one layer in a function."""

    def __init__(self, program: Program, made: Converted, function: str, layer: str) -> None:
        column = made.artifact.site_index(layer)
        label = next(label for label, site in made.audited.sites[function].items() if site == column)
        self.program = program
        self.quantize = next(op for op in program.functions[function].operations if op.label == label)
        (self.dequantize,) = self.quantize.out.users
        self.product = self.dequantize
        while self.product.name not in PRODUCTS:
            (self.product,) = self.product.out.users
        unpack = source(self.product.operands[1])
        assert unpack is not None
        self.unpack = unpack
        self.weight, self.scale = (constant_of(unpack, number) for number in (0, 1))
        (self.add,) = self.product.out.users
        self.bias = constant_of(self.add, 1)
