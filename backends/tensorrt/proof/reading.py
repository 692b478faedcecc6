"""What only this target has around a product: a ratio and factors behind it, both in front of the bias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.onnx.reading import only_user, producer, tensor_of
from dq_toolchain.backends.common.powers import factored, product_of
from dq_toolchain.toolchain.formats.artifact import LayerWeights


def factor_name(layer: str, number: int) -> str:
    """Of a multiplication by powers of two behind the product of a layer whose weight scales fp16 does not hold."""
    return f"{layer}.factor{number}"


def as_held(weights: LayerWeights, dtype: torch.dtype) -> tuple[LayerWeights, tuple[Tensor, ...]]:
    """Weights as a graph of that type holds them, and factors (out,) of their product."""
    if dtype != torch.float16:
        return weights, ()
    own = factored(weights.weight_scale)
    return LayerWeights(weights.weight_q, own.scale), own.factors


def multiplied(node: Any) -> Any:
    """What a product is after its ratio and its factors."""
    out = node.outputs[0]
    if read_ratio_behind(node) is not None:
        out = only_user(out, "Mul").outputs[0]
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
        out = only_user(out, "Mul").outputs[0]
    number = 0
    while (user := only_user(out, "Mul")) is not None and user.name == factor_name(str(node.name), number):
        yield user
        out, number = user.outputs[0], number + 1


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
