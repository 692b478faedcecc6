"""How much one call of a function computes, counted from the program, and how long Apple's interpreter takes for it."""

from __future__ import annotations

from collections import Counter
from math import prod

from dq_toolchain.backends.coreai.ir import Graph, Operation, Program

PER_SECOND = {"conv": 1.0e9, "product": 0.9e9, "product in fp16": 0.03e9, "softmax": 0.01e9}
"""Apple's interpreter: multiply-accumulates a second, and elements of a softmax; by `python -m benchmarks.coreai_interpreters`.

It sums matrix products of fp16 in fp16, one after the other.
"""


def macs(program: Program, graph: Graph) -> int:
    """Multiply-accumulates of one call, invoked graphs included; those with zeros of padding count."""
    work = counted(program, graph)
    return sum(work[kind] for kind in ("conv", "product", "product in fp16"))


def apples_seconds(program: Program, graph: Graph) -> float:
    """What one call takes Apple's interpreter, roughly."""
    return sum(number / PER_SECOND[kind] for kind, number in counted(program, graph).items())


def counted(program: Program, graph: Graph) -> Counter[str]:
    """What ``PER_SECOND`` is about, by its names."""
    found: Counter[str] = Counter()
    for op in graph.operations:
        if op.name == "invoke":
            found.update(counted(program, program.callee(op)))
        elif (one := _counted(op)) is not None:
            found[one[0]] += one[1]
    return found


def _counted(op: Operation) -> tuple[str, int] | None:
    if op.name in ("conv2d", "conv3d"):  # a weight is (out, in / groups, *kernel)
        return "conv", prod(op.out.shape) * prod(op.operands[1].shape[1:])
    if op.name in (
        "conv_transpose2d",
        "conv_transpose3d",
    ):  # (in, out / groups, *kernel): each input goes to so many places
        return "conv", prod(op.operands[0].shape) * prod(op.operands[1].shape[1:])
    if op.name == "batch_matmul":
        kind = "product in fp16" if op.out.dtype == "f16" else "product"
        return kind, prod(op.out.shape) * op.operands[0].shape[-1]
    return ("softmax", prod(op.out.shape)) if op.name == "softmax" else None
