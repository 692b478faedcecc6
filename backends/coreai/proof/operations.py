"""The table of operations: what of a program runs in integers, what in float, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dq_toolchain.backends.common.qdq.reading import WEIGHT_ONLY
from dq_toolchain.backends.coreai.ir import Graph, Operation, Program
from dq_toolchain.backends.coreai.proof.reading import PRODUCTS, UNPACKED, source
from dq_toolchain.toolchain.formats.bundle import Operation as Row
from dq_toolchain.toolchain.quant.site import KEPT

INTEGERS = "int8 x int8, if the compute unit does so"
_WHY = {
    'attention products stay in float: attention = "float" in the recipe': ("batch_matmul", "softmax"),
    "normalisation: statistics need float": ("reduce_mean", "rsqrt", "sqrt", "abs", "reduce_max"),
    "activation functions, sums and products between layers": (
        "silu", "gelu", "sigmoid", "tanh", "erf", "exp", "relu", "add", "sub", "mul", "divide", "pow", "sin", "cos",
        "maximum", "minimum",
    ),
    "brings a layer's input to int8 and back": ("quantize", "dequantize"),
    "unpacks integer weights": (UNPACKED, "lut_to_dense"),
    "runs a graph of its own, which Core AI may replace by a kernel": ("invoke",),
}  # fmt: skip
MOVES = "moves data, no arithmetic"


def operations_table(program: Program) -> Iterator[Row]:
    """One row per kind of operation, counted over all functions and the graphs that they invoke."""
    rows: Counter[tuple[str, str, str]] = Counter()
    for function in program.functions.values():
        for op in _all(program, function):
            if op.name != "constant":
                rows[(op.name, *_arithmetic(op))] += 1
    for name, arithmetic, why in sorted(rows, key=lambda row: (row[1], row[0])):
        yield Row(name, "program", arithmetic, rows[name, arithmetic, why], why)


def _all(program: Program, graph: Graph) -> Iterator[Operation]:
    for op in graph.operations:
        yield op
        if op.name == "invoke":
            yield from _all(program, program.callee(op))


def _arithmetic(op: Operation) -> tuple[str, str]:
    if op.name in PRODUCTS:
        kinds = [None if one is None else one.name for one in map(source, op.operands[:2])]
        if kinds[0] == "dequantize" and kinds[1] in (UNPACKED, "dequantize"):
            return INTEGERS, ""
        if kinds[1] == UNPACKED:
            return WEIGHT_ONLY, ""
        if kinds[1] == "constant":
            return "float", KEPT
    return "float", next((text for text, kinds in _WHY.items() if op.name in kinds), MOVES)
