"""Proof, from the lowered file alone, that a text encoder or a decoder holds its integers and computes with them."""

from __future__ import annotations

import numpy as np

from dq_toolchain.backends.executorch.graph.parts import range_row
from dq_toolchain.backends.executorch.proof.audit import PORTABLE_PRODUCTS, operations_of
from dq_toolchain.backends.executorch.proof.planted import check_planted
from dq_toolchain.backends.executorch.proof.products import (
    bias_of,
    check_types,
    decode_weights,
    fail,
    products,
    range_dims,
)
from dq_toolchain.backends.executorch.proof.pte_file import Graph, Node, PteFile
from dq_toolchain.backends.executorch.proof.tables import check_tables
from dq_toolchain.backends.executorch.proof.trace import Entry, entry_of
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.parts.part import Part


def audit_part(file: PteFile, part: Part) -> tuple[Operation, ...]:
    """The table of operations of a file that holds exactly the part's integers.

    Raises:
        BackendError: a layer does not run in integers, is missing, or has another range than it must have; or an integer, a
            scale or a bias differs.
    """
    (method,) = file.methods
    wrong = next((node.kind for node in method.portable if any(word in node.kind for word in PORTABLE_PRODUCTS)), None)
    if wrong is not None:
        raise fail(f"{part.name}: {wrong} runs outside the delegate, in float")
    left = [name for name in part.layers if name not in part.tables]
    for graph, node in products(method):
        entry = _entry(graph, node, part) if node.kind != "FullyConnected" else None
        planted = 0 if entry is None else entry.high.shape[-1]
        names = [name for name in left if _is_of(graph, node, part, name, planted)]
        if not names:
            raise fail(f"{part.name}: a {node.kind} holds weights and a bias that belong to no layer")
        left.remove(_check_input(graph, node, part, names, entry))
    if left:
        raise fail(f"{part.name}: {left[0]} is not in the file as an integer operation")
    check_tables(method, part)
    return tuple(operations_of(file.methods))


def _entry(graph: Graph, node: Node, part: Part) -> Entry:
    """How a convolution gets its range: from constants of the file that are the part's ranges."""
    row = range_row(part).numpy().tobytes()
    ranges = [number for number, value in graph.values.items() if value.dtype == "fp32" and value.data == row]
    return entry_of(graph, node, ranges, len(part.layers))


def _check_input(graph: Graph, node: Node, part: Part, names: list[str], entry: Entry | None) -> str:
    """Which of ``names``, whose weights and biases are the same, a product is, by the range of its input."""
    name = names[0]
    check_types(graph, node, name, "qdint8", "fp32")
    if entry is not None:
        name = list(part.layers)[entry.site]
        if name not in names:
            raise fail(f"{part.name}: the input of {names[0]} is clamped to the range of {name}")
        check_planted(graph, node, name, entry, tuple(part.layers[name].weight_q.shape))
    elif range_dims(graph, node) != 1:
        raise fail(f"{part.name}: the range of {name} is not taken for each token")
    return name


def _is_of(graph: Graph, node: Node, part: Part, name: str, planted: int) -> bool:
    value, weights = graph.values[node.fields["filter_id"]], part.layers[name]
    want = weights.weight_q.numpy()
    if value.dtype != "qcint8" or value.scales != weights.weight_scale.numpy().tobytes():
        return False
    got, channels = decode_weights(value, node.kind), want.shape[1]
    if got.shape != (len(want), channels + planted, *want.shape[2:]):
        return False
    if not np.array_equal(got[:, :channels], want) or got[:, channels:].any():
        return False
    bias, mine = part.float_parameters.get(f"{name}.bias"), bias_of(graph, node)
    return (b"" if bias is None else bias.numpy().tobytes()) == (b"" if mine is None else mine.data)
