"""Permutations of more axes than the NPU has, as transformers bring patches back to a picture: written with five axes at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dq_toolchain.backends.common.onnx.building import GraphBuilder

MOST_AXES = 5


def permutation_of(node: Any) -> list[int] | None:
    """Of a Transpose, or of an Einsum that only permutes; None for any other node."""
    if node.op_type == "Transpose" and "perm" in node.attributes:
        return [int(axis) for axis in node.attributes["perm"].value]
    if node.op_type != "Einsum" or len(node.inputs) != 1:
        return None
    taken, _, given = str(node.attributes["equation"].value).replace(" ", "").partition("->")
    return (
        [taken.index(axis) for axis in given]
        if sorted(taken) == sorted(given) and len(set(taken)) == len(taken)
        else None
    )


def without_axes_of_one(shape: Sequence[int], permutation: Sequence[int]) -> tuple[list[int], list[int]]:
    """The same permutation of the axes that are longer than one: their sizes, and which goes where."""
    kept = [axis for axis, size in enumerate(shape) if size != 1]
    return [shape[axis] for axis in kept], [kept.index(axis) for axis in permutation if axis in kept]


def turn_permutations(builder: GraphBuilder) -> None:
    """Replace every Einsum that only permutes, and every Transpose of too many axes; the reshapes around them go.

    What has more than five axes longer than one stays, and the lint refuses it.
    """
    for node in list(builder.graph):
        permutation = permutation_of(node)
        if permutation is None or (node.op_type == "Transpose" and len(permutation) <= MOST_AXES):
            continue
        x, out = node.inputs[0], node.outputs[0]
        sizes, perm = without_axes_of_one([int(size) for size in x.shape], permutation)
        if len(sizes) > MOST_AXES:
            continue
        before = x.producer()
        source = before.inputs[0] if before is not None and before.op_type == "Reshape" else x
        to = builder.constant(f"shape.{'x'.join(map(str, sizes))}", torch.tensor(sizes))
        flat = builder.node(node, "Reshape", [source, to], f"{out.name}.axes", sizes)
        turned = builder.node(node, "Transpose", [flat], f"{out.name}.turned", [sizes[axis] for axis in perm])
        turned.producer().attributes["perm"] = builder.ir.Attr("perm", builder.ir.AttributeType.INTS, perm)
        _back(builder, node, out, turned)


def _back(builder: GraphBuilder, node: Any, out: Any, turned: Any) -> None:
    """Readers of ``out`` read ``turned``: a reshape at once, anything else by way of the shape that ``out`` has."""
    users = list(out.uses())
    if users and all(user.op_type == "Reshape" for user, _ in users):
        builder.instead(out, users, turned, f"{out.name}.replaced")
        return
    shape = [int(size) for size in out.shape]
    to = builder.constant(f"shape.{'x'.join(map(str, shape))}", torch.tensor(shape))
    back = builder.node(turned.producer(), "Reshape", [turned, to], f"{out.name}.shaped", shape, after=True)
    builder.instead(out, users, back, f"{out.name}.replaced")
