"""What stands around a product in a graph: Q/DQ in front of it, integers or floats as its weight, a ratio, a bias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.powers import factored, product_of
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.quant.layers import to_input_first

PRODUCTS = ("Conv", "Gemm", "MatMul", "ConvTranspose")


def factor_name(layer: str, number: int) -> str:
    """Of a multiplication by powers of two behind the product of a layer whose weight scales fp16 does not hold."""
    return f"{layer}.factor{number}"


def as_held(weights: LayerWeights, dtype: torch.dtype) -> tuple[LayerWeights, tuple[Tensor, ...]]:
    """Weights as a graph of that type holds them, and factors (out,) of their product."""
    if dtype != torch.float16:
        return weights, ()
    own = factored(weights.weight_scale)
    return LayerWeights(weights.weight_q, own.scale), own.factors


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
    """The numbers of a constant in their own type (integers below 8 bits as int8), None if it is computed."""
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    return torch.from_numpy(array.copy() if array.dtype.kind in "fiu" else array.astype("int8"))


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


def read_bias(node: Any) -> Tensor | None:
    """The bias of a product: its own third input, or what is added behind it (and behind a ratio)."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return tensor_of(node.inputs[2])
    out = multiplied(node)
    users = [user for user, _ in out.uses()]
    if len(users) == 1 and users[0].op_type == "Add":
        other = users[0].inputs[1] if users[0].inputs[0] is out else users[0].inputs[0]
        return tensor_of(other)
    return None


def multiplied(node: Any) -> Any:
    """What a product is after its ratio and its factors."""
    out = node.outputs[0]
    if read_ratio_behind(node) is not None:
        out = _only_user(out, "Mul").outputs[0]
    for each in _factors(node):
        out = each.outputs[0]
    return out


def read_factors(node: Any) -> Tensor | None:
    """The factors behind a product multiplied, (out,) float32, or 1 if there are none; None if one is computed."""
    values = []
    for each in _factors(node):
        value = tensor_of(each.inputs[1])
        if value is None:
            return None
        values.append(value.to(torch.float32).flatten())
    return product_of(tuple(values))


def _factors(node: Any) -> Iterator[Any]:
    """The multiplications by factors behind a product, and behind its ratio."""
    out = node.outputs[0]
    if read_ratio_behind(node) is not None:
        out = _only_user(out, "Mul").outputs[0]
    number = 0
    while (user := _only_user(out, "Mul")) is not None and user.name == factor_name(str(node.name), number):
        yield user
        out, number = user.outputs[0], number + 1


def _only_user(value: Any, op_type: str) -> Any:
    users = [user for user, _ in value.uses()]
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None


def read_ratio_behind(node: Any) -> int | None:
    """The column of ``ranges`` that a product is multiplied by."""
    users = [user for user, _ in node.outputs[0].uses()]
    if len(users) != 1 or users[0].op_type != "Mul":
        return None
    other = users[0].inputs[1] if users[0].inputs[0] is node.outputs[0] else users[0].inputs[0]
    return column_of(other)


def column_of(value: Any) -> int | None:
    """The column of ``ranges`` that a value holds."""
    gather = producer(value, "Gather")
    row = None if gather is None else producer(gather.inputs[0], "Cast")
    if gather is None or row is None or row.inputs[0].name != "ranges":
        return None
    column = tensor_of(gather.inputs[1])
    return None if column is None else int(column.reshape(-1)[0])


def _zero_point(node: Any) -> Tensor | None:
    return tensor_of(node.inputs[2]) if len(node.inputs) > 2 else torch.zeros((), dtype=torch.uint8)
