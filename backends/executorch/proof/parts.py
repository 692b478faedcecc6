"""Proof, from the lowered file alone, that a text encoder or a decoder holds its integers and computes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dq_toolchain.backends.executorch.proof.audit import (
    PORTABLE_PRODUCTS,
    bias_of,
    check_types,
    decode_weights,
    fail,
    operations_of,
    products,
)
from dq_toolchain.backends.executorch.proof.pte_file import Graph, Node, PteFile
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.parts.part import Part


def audit_part(path: Path, file: PteFile, part: Part) -> tuple[Operation, ...]:
    """The table of operations of a file that holds exactly the part's integers.

    Raises:
        BackendError: a layer does not run in integers, is missing, or an integer, a scale or a bias differs.
    """
    (method,) = file.methods
    wrong = next((name for name in method.portable if any(word in name for word in PORTABLE_PRODUCTS)), None)
    if wrong is not None:
        raise fail(f"{part.name}: {wrong} runs outside the delegate, in float")
    tables = part.tables
    left = {name: layer for name, layer in part.layers.items() if name not in tables}
    for graph, node in products(method):
        name = next((each for each in left if _is_of(graph, node, part, each)), None)
        if name is None:
            raise fail(f"{part.name}: a {node.kind} holds weights and a bias that belong to no layer")
        check_types(graph, node, name, "qdint8", "fp32")
        del left[name]
    if left:
        raise fail(f"{part.name}: {next(iter(left))} is not in the file as an integer operation")
    content = path.read_bytes()
    for name in tables:
        if part.layers[name].weight_q.numpy().tobytes() not in content:
            raise fail(f"{part.name}: the file does not hold the table of {name}")
    return tuple(operations_of(file.methods))


def _is_of(graph: Graph, node: Node, part: Part, name: str) -> bool:
    value, weights = graph.values[node.fields["filter_id"]], part.layers[name]
    want = weights.weight_q.numpy()
    if value.dtype != "qcint8" or value.scales != weights.weight_scale.numpy().tobytes():
        return False
    got = decode_weights(value, node.kind)
    channels = want.shape[1]
    same = got.shape[0] == want.shape[0] and got.shape[2:] == want.shape[2:] and got.shape[1] >= channels
    if not same or not np.array_equal(got[:, :channels], want) or got[:, channels:].any():
        return False
    bias, mine = part.float_parameters.get(f"{name}.bias"), bias_of(graph, node)
    return (b"" if bias is None else bias.numpy().tobytes()) == (b"" if mine is None else mine.data)
