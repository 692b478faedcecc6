"""What stands around a product in a graph: Q/DQ in front of it and behind it, integers or floats as its weight, a bias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.toolchain.quant.layers import to_input_first

PRODUCTS = ("Conv", "Gemm", "MatMul", "ConvTranspose")


@dataclass(frozen=True)
class Quantized:
    """A value that passes Q and DQ.

    Attributes:
        quantize, dequantize: the nodes. source: what is quantized.
    """

    quantize: Any
    dequantize: Any

    @property
    def source(self) -> Any:
        return self.quantize.inputs[0]

    @property
    def numbers(self) -> tuple[tuple[Tensor | None, Tensor | None], ...]:
        """(scale, zero_point) of Q and of DQ, None for what is no constant."""
        return tuple((tensor_of(node.inputs[1]), _zero_point(node)) for node in (self.quantize, self.dequantize))


@dataclass(frozen=True)
class Weight:
    """A weight as the graph holds it: ``integers`` and ``scale`` (None where the node has none), and the DQ's axis."""

    integers: Tensor
    scale: Tensor | None
    zero_point: Tensor | None
    axis: int
    dtype: str


def products(graph: Any) -> Iterator[Any]:
    """The nodes that multiply, in order, attention included."""
    return (node for node in graph if node.op_type in PRODUCTS)


def as_graph_has(node: Any, weight: Tensor) -> Tensor:
    """A weight, output channel first, as the product has it: (in, out) of a MatMul, (in, out / groups, ...) of a transposed
    convolution."""
    if node.op_type == "MatMul":
        return weight.T
    if node.op_type == "ConvTranspose":
        return to_input_first(weight, int(node.attributes["group"].value) if "group" in node.attributes else 1)
    return weight


def producer(value: Any, op_type: str) -> Any:
    """The node that makes a value if it is of that kind, else None."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def tensor_of(value: Any) -> Tensor | None:
    """The numbers of a constant in their own type, None if it is computed; integers below 8 bits as int8, uint16 as int32, which
    torch has all operations for."""
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    own = array.astype("int32") if array.dtype == "uint16" else array.copy()
    return torch.from_numpy(own if array.dtype.kind in "fiu" else array.astype("int8"))


def read_quantized(value: Any) -> Quantized | None:
    """Q/DQ that ends in a value."""
    dequantize = producer(value, "DequantizeLinear")
    quantize = None if dequantize is None else producer(dequantize.inputs[0], "QuantizeLinear")
    return None if quantize is None else Quantized(quantize, dequantize)


def read_weight(value: Any) -> Weight | None:
    """Integers behind a DQ, or behind DQ and a transposition, as the product sees them; None for anything else."""
    turn = producer(value, "Transpose")
    node = producer(value if turn is None else turn.inputs[0], "DequantizeLinear")
    integers = None if node is None else tensor_of(node.inputs[0])
    if node is None or integers is None:
        return None
    axis = int(node.attributes["axis"].value) if "axis" in node.attributes else 1
    dtype = str(node.inputs[0].const_value.dtype.name)
    if turn is not None:
        integers, axis = integers.T, integers.dim() - 1 - axis
    return Weight(
        integers, tensor_of(node.inputs[1]), tensor_of(node.inputs[2]) if len(node.inputs) > 2 else None, axis, dtype
    )


def read_bias(node: Any, out: Any) -> Tensor | None:
    """The bias of a product: its own third input, or the constant that is added to ``out``, which follows it."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return tensor_of(node.inputs[2])
    add = only_user(out, "Add")
    if add is None:
        return None
    return tensor_of(add.inputs[1] if add.inputs[0] is out else add.inputs[0])


def only_user(value: Any, op_type: str) -> Any:
    """The node that reads a value if it is the only one and of that kind, else None."""
    users = [user for user, _ in value.uses()]
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None


def _zero_point(node: Any) -> Tensor | None:
    return tensor_of(node.inputs[2]) if len(node.inputs) > 2 else torch.zeros((), dtype=torch.uint8)
