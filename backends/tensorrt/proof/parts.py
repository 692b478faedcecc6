"""Proof, from the saved graph alone, that a text encoder or a decoder holds its integers and computes with them."""

from __future__ import annotations

from typing import Any

from dq_toolchain.backends.common.onnx.audit import audit_error
from dq_toolchain.backends.common.onnx.reading import products, read_weight, tensor_of
from dq_toolchain.backends.common.onnx.tables import check_tables
from dq_toolchain.backends.tensorrt.proof.audit import audit
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.parts.part import Part


def audit_part(graph: Any, part: Part, artifact: Artifact) -> None:
    """Compare every layer and every table of a graph.

    Args:
        artifact: the part in the terms of networks.
    Raises:
        BackendError: a layer is in float, belongs to none, is missing, or an integer, a scale or a bias differs.
    """
    for node in products(graph):
        if str(node.name) in artifact.layers:
            if read_weight(node.inputs[1]) is None:
                raise audit_error(f"the weights of {node.name} are in float")
        elif any(read_weight(value) is not None or tensor_of(value) is not None for value in node.inputs[:2]):
            raise audit_error(f"{node.name} multiplies by constants that belong to no layer of {part.name}")
    audit(graph, artifact, 0)
    check_tables(graph, part)
