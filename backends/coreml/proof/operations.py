"""The table of operations: what of a package runs in integers, what in float, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from dq_toolchain.backends.common.qdq.reading import WEIGHT_ONLY
from dq_toolchain.backends.coreml.interpreter.program import Program
from dq_toolchain.backends.coreml.package import PRODUCTS
from dq_toolchain.backends.coreml.proof.reading import has_integer_weights, is_dequantized
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.quant.site import KEPT

INTEGERS = "int8 x int8, if the compute unit does so"
_WHY = {
    'attention products stay in float: attention = "float" in the recipe': (
        "scaled_dot_product_attention",
        "matmul",
        "softmax",
        "einsum",
    ),
    "normalisation: statistics need float": ("layer_norm", "reduce_mean", "rsqrt", "sqrt", "abs", "reduce_max", "clip"),
    "activation functions, sums and products between layers": (
        "silu",
        "gelu",
        "sigmoid",
        "tanh",
        "add",
        "sub",
        "mul",
        "real_div",
        "inverse",
        "relu",
        "sin",
        "cos",
        "square",
    ),
    "brings a layer's input to int8 and back": ("quantize", "dequantize"),
    "unpacks integer weights, at load time": (
        "constexpr_blockwise_shift_scale",
        "constexpr_affine_dequantize",
        "constexpr_lut_to_dense",
    ),
}
MOVES = "moves data, no arithmetic"


def operations_table(programs: Iterable[Program]) -> Iterator[Operation]:
    """One row per kind of operation, counted over all functions."""
    rows: Counter[tuple[str, str, str]] = Counter()
    for program in programs:
        for op in program.operations:
            rows[(op.op_type, *_arithmetic(op))] += 1
    for name, arithmetic, why in sorted(rows, key=lambda row: (row[1], row[0])):
        yield Operation(name, "program", arithmetic, rows[name, arithmetic, why], why)


def _arithmetic(op: Any) -> tuple[str, str]:
    if op.op_type in PRODUCTS and has_integer_weights(op):
        return (INTEGERS if is_dequantized(op.x) else WEIGHT_ONLY), ""
    if op.op_type in PRODUCTS:
        return "float", KEPT
    if op.op_type == "matmul" and is_dequantized(op.x) and is_dequantized(op.y):
        return INTEGERS, ""
    why = next((text for text, kinds in _WHY.items() if op.op_type in kinds), MOVES)
    return "float", why
