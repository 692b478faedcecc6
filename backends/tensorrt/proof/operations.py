"""The table of operations: what of a graph runs in INT8, what in float, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from dq_toolchain.backends.tensorrt.proof.lint import Placement
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.quant.site import KEPT

INTEGERS = "int8 x int8"
_WHY = {
    'attention products stay in float: attention = "float" in the recipe': ("MatMul", "Softmax"),
    "normalisation: statistics need float": (
        "InstanceNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "ReduceMean",
    ),
    "brings a layer's input to int8 and back, unpacks weights": ("QuantizeLinear", "DequantizeLinear"),
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
MOVES = "moves data, no arithmetic"


def operations_table(
    graph: Any, placements: Sequence[Placement], precision: str, graphs: int, kept: Collection[str] = ()
) -> Iterator[Operation]:
    """One row per kind of operation, counted over ``graphs`` of them, which differ in scales only.

    Args:
        kept: layers that the recipe keeps in float.
    """
    by_name = {placement.name: placement for placement in placements}
    rows: Counter[tuple[str, str, str]] = Counter()
    for node in graph:
        placement = by_name.get(str(node.name))
        if str(node.name) in kept:
            key = (node.op_type, precision, KEPT)
        elif placement is not None:
            key = (node.op_type, INTEGERS if placement.int8 else precision, placement.why_float)
        else:
            why = next((text for text, kinds in _WHY.items() if node.op_type in kinds), MOVES)
            key = (node.op_type, precision, why)
        rows[key] += graphs
    for name, arithmetic, why in sorted(rows, key=lambda row: (row[1] != INTEGERS, row[0], row[2])):
        yield Operation(name, "engine", arithmetic, rows[name, arithmetic, why], why)
