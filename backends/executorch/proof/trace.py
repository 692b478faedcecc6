"""Which column of the ranges input a convolution or linear of the lowered file is clamped to.

Wrong wiring would be silent otherwise: every layer would still run, with another layer's scale.
"""

from __future__ import annotations

import math

from dq_toolchain.backends.executorch.proof.pte_file import Graph, Node
from dq_toolchain.toolchain.errors import BackendError

_TRANSPARENT = ("StaticTranspose", "StaticReshape", "Copy")


def site_of(graph: Graph, node: Node, sites: int) -> int:
    """Index of the site whose ends clamp the data that ``node`` reads.

    Raises:
        BackendError: the input is not clamped by one pair of ends of the ranges input and nothing else.
    """
    try:
        convert = graph.producer[node.fields["input1_id"]]
        _require(convert, "Convert")
        found = {_clamp(graph, part, sites) for part in _clamped(graph, convert.fields["input_id"])}
        (site,) = found
        return site
    except (KeyError, ValueError) as error:
        raise BackendError(
            f"audit of the lowered file failed: the input of a {node.kind} cannot be traced to the "
            f"ranges ({error}); nothing was exported; report it with calibration.json"
        ) from error


def _require(node: Node, kind: str) -> None:
    if node.kind != kind:
        raise ValueError(f"{node.kind} where {kind} was expected")


def _source(graph: Graph, value: int) -> Node:
    node = graph.producer[value]
    while node.kind in _TRANSPARENT:
        node = graph.producer[node.fields["input_id"]]
    return node


def _clamped(graph: Graph, value: int) -> list[Node]:
    """The Minimum nodes behind a value: itself, or both inputs of a concatenation."""
    node = _source(graph, value)
    if node.kind == "Concatenate2":
        return [_source(graph, node.fields[name]) for name in ("input1_id", "input2_id")]
    return [node]


def _clamp(graph: Graph, minimum: Node, sites: int) -> int:
    _require(minimum, "Minimum")
    maximum = _source(graph, minimum.fields["input1_id"])
    _require(maximum, "Maximum")
    high, low = (_column(graph, node.fields["input2_id"], sites) for node in (minimum, maximum))
    if low % 2 or high != low + 1:
        raise ValueError(f"clamped to columns {low} and {high}")
    return low // 2


def _column(graph: Graph, value: int, sites: int) -> int:
    node = _source(graph, value)
    _require(node, "StaticSlice")
    shape = graph.values[node.fields["input_id"]].dims
    if max(shape) != 2 * sites or math.prod(shape) != 2 * sites or math.prod(node.fields["sizes"]) != 1:
        raise ValueError("a slice of something other than the ranges")
    return int(sum(node.fields["offsets"]))
