"""Proof, from the saved graph alone, that a text encoder or a decoder holds its integers, or the weights that they stand for."""

from __future__ import annotations

from typing import Any

import torch

from dq_toolchain.backends.common.onnx.audit import audit_error, check_all_found, check_bias
from dq_toolchain.backends.common.onnx.reading import as_graph_has, products, read_bias, read_weight, tensor_of
from dq_toolchain.backends.common.onnx.tables import check_tables
from dq_toolchain.backends.qnn.proof.audit import audit
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.parts.part import Part


def audit_integers(graph: Any, part: Part, artifact: Artifact) -> None:
    """Compare every layer and every table of a graph in integers.

    Args:
        artifact: the part in the terms of networks.
    Raises:
        BackendError: a layer is in float, belongs to none, is missing, or an integer, a scale, a zero_point or a bias differs.
    """
    _check_names(graph, part, artifact)
    audit(graph, artifact, 0)
    check_tables(graph, part)


def audit_float(graph: Any, part: Part, artifact: Artifact) -> None:
    """Compare a graph in float: weights that the part's integers stand for, to the bit; tables are integers.

    Raises:
        BackendError: a layer belongs to none, is missing, or a weight or a bias differs.
    """
    _check_names(graph, part, artifact)
    left = set(artifact.layers)
    for node in products(graph):
        layer = str(node.name)
        if layer in left:
            left.remove(layer)
            got, want = tensor_of(node.inputs[1]), as_graph_has(node, artifact.layers[layer].dequantized())
            if got is None or not torch.equal(got, want):
                raise audit_error(f"the weights of {layer} differ")
            check_bias(layer, artifact, read_bias(node, node.outputs[0]))
    check_all_found(left)
    check_tables(graph, part)


def _check_names(graph: Any, part: Part, artifact: Artifact) -> None:
    for node in products(graph):
        constants = (read_weight(value) is not None or tensor_of(value) is not None for value in node.inputs[:2])
        if str(node.name) not in artifact.layers and any(constants):
            raise audit_error(f"{node.name} multiplies by constants that belong to no layer of {part.name}")
