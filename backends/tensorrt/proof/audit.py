"""Proof, from a saved graph alone, that it holds the artifact's integers, scales and biases, and a step group's scales."""

from __future__ import annotations

from typing import Any

import torch

from dq_toolchain.backends.common.onnx.audit import (
    audit_error,
    check_all_found,
    check_bias,
    check_integers,
    check_kept,
    check_numbers,
)
from dq_toolchain.backends.common.onnx.reading import (
    as_graph_has,
    producer,
    products,
    read_bias,
    read_quantized,
    read_weight,
    tensor_of,
)
from dq_toolchain.backends.common.powers import product_of
from dq_toolchain.backends.common.ratios import reference_scales
from dq_toolchain.backends.tensorrt.proof.reading import (
    as_held,
    column_of,
    multiplied,
    read_factors,
    read_ratio_behind,
)
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.attention import RIGHT_OPERAND


def audit(graph: Any, artifact: Artifact, group: int | None) -> None:
    """Compare every layer and attention product of one graph.

    Args:
        group: the step group whose scales it must hold, None for the graph with ratios.
    Raises:
        BackendError: anything differs, is missing or is there twice; the text names the site.
    """
    kept = set(artifact.float_layers)
    left = {site.name: index for index, site in enumerate(artifact.sites)}
    unpacked = {layer for layer in artifact.layers if f"{layer}:input" not in left}
    for node in products(graph):
        name = str(node.name)
        if name in unpacked:
            unpacked.remove(name)
            _check_layer(node, name, artifact)
        elif name in artifact.layers:
            _check_operand(node, 0, f"{name}:input", left, artifact, group)
            _check_layer(node, name, artifact)
        elif name in kept:
            kept.remove(name)
            check_kept(node, name, artifact, read_bias(node, multiplied(node)))
        elif name in left:
            layer, operand = name.rsplit(":", 1)
            for place, each in enumerate((operand, RIGHT_OPERAND[operand])):
                _check_operand(node, place, f"{layer}:{each}", left, artifact, group)
    check_all_found((*left, *kept, *unpacked))


def _check_operand(
    node: Any, place: int, site: str, left: dict[str, int], artifact: Artifact, group: int | None
) -> None:
    quantized = read_quantized(node.inputs[place])
    if quantized is None:
        raise audit_error(f"{site} is not quantized")
    if site not in left:
        raise audit_error(f"{site} is there twice")
    index, ratio = left.pop(site), group is None
    # sites that are the same tensor with the same scales share what is in front of them
    same = (
        [i for i, column in enumerate(artifact.scale.T) if torch.equal(column, artifact.scale[:, index])]
        if ratio
        else []
    )
    check_numbers(
        quantized, site, float((reference_scales(artifact.scale) if group is None else artifact.scale[group])[index])
    )
    divide = producer(quantized.source, "Div") if ratio else None
    column = None if divide is None else column_of(divide.inputs[1])
    if ratio and (column is None or column not in same or column != read_ratio_behind(node)):
        raise audit_error(
            f"{site} is divided by ratio {column} and multiplied by ratio {read_ratio_behind(node)}, expected {index}"
        )


def _check_layer(node: Any, layer: str, artifact: Artifact) -> None:
    weights = artifact.layers[layer]
    found, factors = read_weight(node.inputs[1]), read_factors(node)
    if factors is None:
        raise audit_error(f"{layer} is multiplied by what is no constant")
    if found is None:
        got = tensor_of(node.inputs[1])
        held, powers = (weights, ()) if got is None else as_held(weights, got.dtype)
        if not torch.equal(factors, product_of(powers)):
            raise audit_error(f"the factors of {layer} differ")
        if got is None or not torch.equal(got, as_graph_has(node, held.dequantized()).to(got.dtype)):
            raise audit_error(f"the weights of {layer} differ")
    else:
        check_integers(found, layer, weights.weight_q, node.op_type == "MatMul", "INT8")
        if found.scale is None or not torch.equal(found.scale.to(torch.float32) * factors, weights.weight_scale):
            raise audit_error(f"the weight scales of {layer} differ")
    check_bias(layer, artifact, read_bias(node, multiplied(node)))
