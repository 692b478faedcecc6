"""How much one call of a function computes: multiply-accumulates, counted from the program."""

from __future__ import annotations

from math import prod

from dq_toolchain.backends.coreai.ir import Graph, Operation, Program


def macs(program: Program, graph: Graph) -> int:
    """Multiply-accumulates of the products of one call, those of invoked graphs included; additions of padding count."""
    return sum(_macs(program, op) for op in graph.operations)


def _macs(program: Program, op: Operation) -> int:
    if op.name == "invoke":
        return macs(program, program.callee(op))
    if op.name in ("conv2d", "conv3d"):  # a weight is (out, in / groups, *kernel)
        return prod(op.out.shape) * prod(op.operands[1].shape[1:])
    if op.name in (
        "conv_transpose2d",
        "conv_transpose3d",
    ):  # (in, out / groups, *kernel): each input goes to so many places
        return prod(op.operands[0].shape) * prod(op.operands[1].shape[1:])
    if op.name == "batch_matmul":
        return prod(op.out.shape) * op.operands[0].shape[-1]
    return 0
