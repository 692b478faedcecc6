"""Token tables of a part's file: rows of int8, each times a scale of its own."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from dq_toolchain.backends.executorch.proof.products import fail
from dq_toolchain.backends.executorch.proof.pte_file import Graph, Method, Node, Value
from dq_toolchain.toolchain.parts.part import Part

LOOKUP = "aten::embedding.out"
INTO_FLOAT = "dim_order_ops::_to_dim_order_copy.out"


def check_tables(method: Method, part: Part) -> None:
    """Compare the integers of every table, and the scale of each of its rows, with the part's.

    Raises:
        BackendError: one of them differs, or looked up rows are not multiplied by the scales of the same rows.
    """
    left = list(part.tables)
    for integers, scales in _scaled_rows(method):
        named = [name for name in part.tables if _holds(integers, "int8", part.layers[name].weight_q)]
        right = [name for name in named if _holds(scales, "fp32", part.layers[name].weight_scale.view(-1, 1))]
        if named and not right:
            raise fail(f"{part.name}: a row scale of {named[0]} differs")
        left = [name for name in left if name not in right]
    if left:
        raise fail(f"{part.name}: the file does not hold the table of {left[0]} and the scale of each row")


def _holds(value: Value, dtype: str, wanted: Tensor) -> bool:
    return (value.dtype, value.dims, value.data) == (dtype, tuple(wanted.shape), wanted.numpy().tobytes())


def _scaled_rows(method: Method) -> Iterator[tuple[Value, Value]]:
    """Tables whose rows are multiplied by rows of another that were looked up with the same tokens: both, int8 first."""
    for graph in method.delegates:
        for node in graph.nodes:
            if node.kind == "Multiply":
                found = [_lookup(graph, node.fields[name]) for name in ("input1_id", "input2_id")]
                rows = [each.fields["arguments"][:2] for each in found if each is not None]
                if len(rows) == 2 and rows[0][1] == rows[1][1]:
                    tables = [graph.values[table] for table, _ in rows if table in graph.values]
                    tables.sort(key=lambda table: table.dtype != "int8")
                    if len(tables) == 2:
                        yield tables[0], tables[1]


def _lookup(graph: Graph, value: int) -> Node | None:
    node = graph.producer.get(value)
    if node is not None and node.kind == INTO_FLOAT:
        node = graph.producer.get(node.fields["arguments"][0])
    return node if node is not None and node.kind == LOOKUP else None
