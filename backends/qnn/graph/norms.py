"""RMS norms over rows (R, C) with a weight (C) behind them, where the compiler gets them wrong as they are.

Measured on Qualcomm's emulator: the compiler makes one operation of Pow, ReduceMean, Add, Sqrt, Reciprocal, x * reciprocal and the
multiplication by a constant that follows, as the norm of queries and keys (B, T, heads, C) is written. That operation gives what
happened to be in memory, or ends the process,

- of at most 32 channels where there is an axis in front of the last two, in most sizes: tokens first with 9 tokens and more, heads
  first with 9 heads and more or with 16 or 64 tokens. Right are 33 channels and more, and norms of whole tokens (1, T, C);
- where the constant is not one weight per channel but a scalar, or a table of rotary positions, in all sizes.

A weight as the first factor is refused ("memory allocation"). Over rows with a weight, of ones where the norm has none, all of them
were right, and so were numbers whose squares are beyond fp16, which the same operations one by one do not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from dq_toolchain.backends.common.onnx.building import GraphBuilder
from dq_toolchain.backends.common.onnx.reading import only_user, producer, tensor_of

FEW_CHANNELS = 32
"""Up to how many channels the one operation is wrong where there is more than rows of them."""
STEPS = ("Reciprocal", "Sqrt", "Add", "ReduceMean", "Pow")
"""From x * reciprocal back to x."""


@dataclass(frozen=True)
class Norm:
    """x / sqrt(mean(x ** 2) + epsilon) over the last axis, and the multiplication by a weight (C) behind it if there is one.

    Attributes:
        node: x * reciprocal. steps: those of STEPS. weighted: the multiplication, None where there is none; weight: its constant.
    """

    node: Any
    steps: tuple[Any, ...]
    weighted: Any
    weight: Any

    @property
    def x(self) -> Any:
        return self.node.inputs[0]

    @property
    def shape(self) -> list[int]:
        return [int(size) for size in self.x.shape]

    @property
    def wrong(self) -> bool:
        """Whether the compiler gets it wrong as it is."""
        few = self.shape[-1] <= FEW_CHANNELS and prod(self.shape[:-2]) > 1
        return few or self.weighted is None or self.weighted.inputs[1] is not self.weight


def norm_at(node: Any) -> Norm | None:
    """The norm whose x * reciprocal, in this order, a node is."""
    if node.op_type != "Mul" or node.inputs[0] is None or node.inputs[0].shape is None:
        return None
    x, before, steps = node.inputs[0], node.inputs[1], []
    for op_type in STEPS:
        found = producer(before, op_type)
        if found is None:
            return None
        steps.append(found)
        before = found.inputs[0]
    axes = None if len(steps[3].inputs) < 2 else tensor_of(steps[3].inputs[1])
    if before is not x or axes is None or axes.tolist() not in ([-1], [len(x.shape) - 1]):
        return None
    weighted = only_user(node.outputs[0], "Mul")
    weight = None if weighted is None else _weight(weighted, node.outputs[0], int(x.shape[-1]))
    return Norm(node, tuple(steps), None if weight is None else weighted, weight)


def rewrite_norms(builder: GraphBuilder) -> None:
    """Write those that are compiled wrong over rows, in place."""
    for norm in [found for found in map(norm_at, builder.graph) if found is not None and found.wrong]:
        last = norm.node if norm.weighted is None else norm.weighted
        out, users = last.outputs[0], list(last.outputs[0].uses())
        name = str(last.name or out.name)
        builder.instead(out, users, _over_rows(builder, norm, last, name), f"{name}.replaced")


def _over_rows(builder: GraphBuilder, norm: Norm, before: Any, name: str) -> Any:
    """The norm's result, in the shape of x, from nodes in front of another one."""
    rows = [prod(norm.shape[:-1]), norm.shape[-1]]
    one = [rows[0], 1]
    _, _, above_zero, _, power = norm.steps
    to, back = (
        builder.constant(f"shape.{'x'.join(map(str, shape))}", torch.tensor(shape)) for shape in (rows, norm.shape)
    )
    axis = builder.constant("last_axis", torch.tensor([-1]))
    x = builder.node(before, "Reshape", [norm.x, to], f"{name}.rows", rows)
    last = builder.node(before, "Pow", [x, power.inputs[1]], f"{name}.squares", rows)
    last = builder.node(before, "ReduceMean", [last, axis], f"{name}.mean", one, {"keepdims": 1})
    last = builder.node(before, "Add", [last, above_zero.inputs[1]], f"{name}.above_zero", one)
    last = builder.node(before, "Sqrt", [last], f"{name}.root", one)
    last = builder.node(before, "Reciprocal", [last], f"{name}.reciprocal", one)
    last = builder.node(before, "Mul", [x, last], f"{name}.normed", rows)
    last = builder.node(before, "Mul", [last, _per_channel(builder, norm)], f"{name}.weighted", rows)
    return builder.node(before, "Reshape", [last, back], f"{name}.rows_back", norm.shape)


def _per_channel(builder: GraphBuilder, norm: Norm) -> Any:
    channels = norm.shape[-1]
    if norm.weight is None:
        return builder.constant(f"ones.{channels}", torch.ones(channels))
    if len(norm.weight.shape) == 1:
        return norm.weight
    weight = tensor_of(norm.weight)
    assert weight is not None  # _weight
    return builder.constant(f"{norm.weight.name}.{channels}", weight.reshape(channels))


def _weight(node: Any, normed: Any, channels: int) -> Any:
    """The constant that a multiplication has beside ``normed``, None if it is not one number per channel."""
    other = node.inputs[1] if node.inputs[0] is normed else node.inputs[0]
    held = tensor_of(other)
    return other if held is not None and held.dim() and held.numel() == held.shape[-1] == channels else None
