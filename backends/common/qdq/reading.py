"""What an audit wants to know of a written program; each target reads it from its own operations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from torch import Tensor

ProgramT = TypeVar("ProgramT", contravariant=True)
WEIGHT_ONLY = "float x int8"
"""In a table of operations, the arithmetic of a product of floats with weights that are unpacked from integers."""


class Unreadable(Exception):
    """An operation is not of a form that lowering makes; the text says how."""


@dataclass(frozen=True)
class Column:
    """A scale that the input ``ranges`` brings: its column."""

    index: int


Numbers = tuple[float | Column, int]
"""scale and zero_point of a quantize or dequantize."""


@dataclass(frozen=True)
class Found:
    """An operation that multiplies tensors.

    Attributes:
        kind: with integer weights, with float weights, or of two quantized operands.
        text: what it is called in errors.
        op: in the form of the target.
    """

    kind: Literal["integer", "float", "product"]
    text: str
    op: Any


@dataclass(frozen=True)
class Weight:
    """Integers (int8, shape of the weight), scale (out,) or (1,) as unpacked, and whether a table holds them."""

    integers: Tensor
    scale: Tensor
    is_table: bool


@dataclass(frozen=True)
class Operand:
    """A tensor that passes quantize and dequantize.

    Attributes:
        name: of the quantize operation.
        numbers: of quantize and of dequantize.
        dtype: of the integers.
        ratio: column of ``ranges`` by which the tensor is divided before, None if it is not.
    """

    name: str
    numbers: tuple[Numbers, Numbers]
    dtype: str
    ratio: int | None


@dataclass(frozen=True)
class Tail:
    """What follows a product until it is the layer's output: factors per channel (their product), ratio, bias (None: none).

    Attributes:
        out: the layer's output, in the form of the target.
        sums: where a converter put the bias and float parameters that are added behind it into one constant each: these.
    """

    rest: Tensor
    ratio: int | None
    bias: Tensor | None
    half: bool
    out: Any
    sums: tuple[Tensor, ...] = ()


class Reader(Protocol, Generic[ProgramT]):
    """A target's eyes on its own programs. Every method but the first raises Unreadable."""

    def products(self, program: ProgramT) -> Iterator[Found]:
        """Every operation that multiplies tensors and that a site or a layer kept in float belongs to, in order."""

    def weight(self, op: Any) -> Weight:
        """The integer weight of a layer."""

    def operand(self, op: Any, number: int = 0) -> Operand:
        """The Q/DQ in front of an input of a product."""

    def factors(self, scale: Tensor, is_table: bool, half: bool) -> int:
        """How many factors per channel follow the product of a layer with this weight scale (out,)."""

    def tail(self, op: Any, factors: int, has_ratio: bool, has_bias: bool) -> Tail:
        """What follows the product of a layer."""

    def ratio(self, out: Any) -> tuple[Any, int | None]:
        """``out`` times a ratio: the result of that, and the column of ``ranges``."""

    def result(self, op: Any) -> Any:
        """The result of a product, as ``ratio`` takes it."""

    def output(self, tail: Tail) -> Operand:
        """The Q/DQ behind a layer."""

    def float_parameters(self, op: Any) -> tuple[Tensor | None, Tensor | None, bool]:
        """Weight and bias of a layer in float, None where there is none, and whether they are fp16."""


def digest(integers: Tensor) -> bytes:
    """What integers are found by."""
    return hashlib.blake2b(integers.contiguous().numpy().tobytes()).digest()
