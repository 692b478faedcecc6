"""Paddings as concatenations with constants.

Measured on Qualcomm's emulator: a float Pad is compiled to wrong numbers in some sizes. Behind the last column of a picture of 16
channels and 8x8 pixels, or of 64 and 16x16, it leaves what happened to be in memory, whatever the constant is; 3 channels of 32x32
and 128 of 32x32 are right, and so are paddings at the top or on all sides. So are the row of ones that SANA's linear attention
appends, alone, and not in its place in the network. Concatenations were right in all of them. What the
exporter folds into a convolution, as in an autoencoder's encoder, is no Pad, and was right.
"""

from __future__ import annotations

from typing import Any

import torch

from dq_toolchain.backends.common.onnx.building import GraphBuilder
from dq_toolchain.backends.common.onnx.reading import tensor_of

CONSTANT = "constant"


def rewrite_paddings(builder: GraphBuilder) -> None:
    """Replace those of a constant in the builder's graph, in place. Others, and such that cut, are left, for the lint to refuse."""
    for node in [node for node in builder.graph if node.op_type == "Pad" and _is_constant(node)]:
        out, users, name = node.outputs[0], list(node.outputs[0].uses()), str(node.name or node.outputs[0].name)
        last, shape = node.inputs[0], [int(size) for size in node.inputs[0].shape]
        for axis, (before, after) in _pads(node).items():
            sides = {"before": before, "after": after}
            held = {
                side: builder.constant(f"{name}.{axis}.{side}", torch.full(_sized(shape, axis, count), _value(node)))
                for side, count in sides.items()
                if count
            }
            parts = [held.get("before"), last, held.get("after")]
            shape = _sized(shape, axis, before + shape[axis] + after)
            last = builder.node(
                node, "Concat", [each for each in parts if each is not None], f"{name}.{axis}", shape, {"axis": axis}
            )
        builder.instead(out, users, last, f"{name}.replaced")


def _sized(shape: list[int], axis: int, count: int) -> list[int]:
    return [count if i == axis else length for i, length in enumerate(shape)]


def _is_constant(node: Any) -> bool:
    mode = node.attributes.get("mode")
    given = [tensor_of(value) for value in node.inputs[1:] if value is not None]
    if (mode is not None and mode.value != CONSTANT) or any(held is None for held in given):
        return False
    return given[0] is not None and bool((given[0] >= 0).all())


def _value(node: Any) -> float:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    held = None if value is None else tensor_of(value)
    return 0.0 if held is None else float(held)


def _pads(node: Any) -> dict[int, tuple[int, int]]:
    """axis -> (before, after), of the axes that get anything."""
    pads, rank = tensor_of(node.inputs[1]), len(node.inputs[0].shape)
    assert pads is not None  # _is_constant
    given = node.inputs[3] if len(node.inputs) > 3 else None
    axes = list(range(rank)) if given is None else [int(axis) % rank for axis in tensor_of(given)]  # type: ignore[union-attr]
    numbers = [int(number) for number in pads.reshape(-1)]
    found = zip(axes, zip(numbers[: len(axes)], numbers[len(axes) :], strict=True), strict=True)
    return {axis: each for axis, each in found if each != (0, 0)}
