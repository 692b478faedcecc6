"""The table of operations: what of a graph runs in INT8, what in float, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.quant.site import KEPT

_WHY = {
    'attention products stay in float: attention = "float" in the recipe': ("MatMul", "Softmax"),
    "normalisation: statistics need float": (
        "InstanceNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "ReduceMean",
    ),
    "activation functions, sums and products between layers": (
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Sigmoid",
        "Tanh",
        "Erf",
        "Gelu",
        "Sin",
        "Cos",
        "Sqrt",
        "Pow",
    ),
}
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
TO_INT8 = "brings a layer's input to int8 and back, unpacks weights"
MOVES = "moves data, no arithmetic"


def operations_table(
    graph: Any,
    arithmetic: Mapping[str, tuple[str, str]],
    precision: str,
    graphs: int,
    kept: Collection[str] = (),
    where: str = "engine",
    quantizers: str = TO_INT8,
) -> Iterator[Operation]:
    """One row per kind of operation, counted over ``graphs`` of them, which differ in scales only; integers first.

    Args:
        arithmetic: of products, by name: what they compute in, and what keeps them from integers ("": nothing).
        precision: of what is between products.
        kept: layers that the recipe keeps in float.
        where: what executes it. quantizers: what quantize and dequantize are for.
    """
    rows: Counter[tuple[str, str, str]] = Counter()
    for node in graph:
        name = str(node.name)
        if name in kept:
            key = (node.op_type, precision, KEPT)
        elif name in arithmetic:
            key = (node.op_type, *arithmetic[name])
        elif node.op_type in QUANTIZERS:
            key = (node.op_type, precision, quantizers)
        else:
            why = next((text for text, kinds in _WHY.items() if node.op_type in kinds), MOVES)
            key = (node.op_type, precision, why)
        rows[key] += graphs
    for name, how, why in sorted(rows, key=lambda row: (row[1] == precision, row[0], row[2])):
        yield Operation(name, where, how, rows[name, how, why], why)
