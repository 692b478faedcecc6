"""Proof, from a saved graph alone, that it holds the artifact's integers, scales and biases, and a step group's scales."""

from __future__ import annotations

from typing import Any

import torch

from dq_toolchain.backends.common.powers import product_of
from dq_toolchain.backends.common.ratios import reference_scales
from dq_toolchain.backends.tensorrt.proof.reading import (
    as_graph_has,
    as_held,
    column_of,
    producer,
    products,
    read_bias,
    read_factors,
    read_quantized,
    read_ratio_behind,
    read_weight,
    tensor_of,
)
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.attention import RIGHT_OPERAND


def _fail(text: str) -> BackendError:
    return BackendError(
        f"audit of the saved graph failed: {text}; nothing was exported; report it with calibration.json"
    )


def audit(graph: Any, artifact: Artifact, group: int | None) -> None:
    """Compare every layer and attention product of one graph.

    Args:
        group: the step group whose scales it must hold, None for the graph with ratios.
    Raises:
        BackendError: anything differs, is missing or is there twice; the text names the site.
    """
    kept = set(artifact.float_layers)
    left = {site.name: index for index, site in enumerate(artifact.sites)}
    for node in products(graph):
        name = str(node.name)
        if name in artifact.layers:
            _check_operand(node, 0, f"{name}:input", left, artifact, group)
            _check_layer(node, name, artifact)
        elif name in kept:
            kept.remove(name)
            _check_kept(node, name, artifact)
        elif name in left:
            layer, operand = name.rsplit(":", 1)
            for place, each in enumerate((operand, RIGHT_OPERAND[operand])):
                _check_operand(node, place, f"{layer}:{each}", left, artifact, group)
    if left or kept:
        raise _fail(f"{next(iter((*left, *kept)))} is not in the graph")


def _check_kept(node: Any, layer: str, artifact: Artifact) -> None:
    turned, wanted = node.op_type == "MatMul", artifact.float_parameters[f"{layer}.weight"]
    got = tensor_of(node.inputs[1])
    if got is None or not torch.equal(got, (wanted.T if turned else wanted).to(got.dtype)):
        raise _fail(f"the weights of {layer}, kept in float, differ")
    _check_bias(node, layer, artifact)


def _check_operand(
    node: Any, place: int, site: str, left: dict[str, int], artifact: Artifact, group: int | None
) -> None:
    quantized = read_quantized(node.inputs[place])
    if quantized is None:
        raise _fail(f"{site} is not quantized")
    if site not in left:
        raise _fail(f"{site} is there twice")
    index, ratio = left.pop(site), group is None
    wanted = float((reference_scales(artifact.scale) if group is None else artifact.scale[group])[index])
    # sites that are the same tensor with the same scales share what is in front of them
    same = (
        [i for i, column in enumerate(artifact.scale.T) if torch.equal(column, artifact.scale[:, index])]
        if ratio
        else []
    )
    for what, (got, zero) in zip(("quantize", "dequantize"), quantized.numbers, strict=True):
        if got is None or got.numel() != 1 or float(got) != wanted or zero is None or zero.any():
            raise _fail(f"{what} of {site} has scale {got} and zero_point {zero}, the artifact has {wanted:g} and 0")
    divide = producer(quantized.source, "Div") if ratio else None
    column = None if divide is None else column_of(divide.inputs[1])
    if ratio and (column is None or column not in same or column != read_ratio_behind(node)):
        raise _fail(
            f"{site} is divided by ratio {column} and multiplied by ratio {read_ratio_behind(node)}, expected {index}"
        )


def _check_layer(node: Any, layer: str, artifact: Artifact) -> None:
    weights, turned = artifact.layers[layer], node.op_type == "MatMul"
    found, factors = read_weight(node.inputs[1]), read_factors(node)
    if factors is None:
        raise _fail(f"{layer} is multiplied by what is no constant")
    if found is None:
        got = tensor_of(node.inputs[1])
        held, powers = (weights, ()) if got is None else as_held(weights, got.dtype)
        if not torch.equal(factors, product_of(powers)):
            raise _fail(f"the factors of {layer} differ")
        if got is None or not torch.equal(got, as_graph_has(node, held.dequantized()).to(got.dtype)):
            raise _fail(f"the weights of {layer} differ")
    else:
        integers = found.integers.T if turned else found.integers
        if found.dtype != "INT8" or not torch.equal(integers, weights.weight_q):
            raise _fail(f"the integers of {layer} differ")
        if found.scale is None or not torch.equal(found.scale.to(torch.float32) * factors, weights.weight_scale):
            raise _fail(f"the weight scales of {layer} differ")
    _check_bias(node, layer, artifact)


def _check_bias(node: Any, layer: str, artifact: Artifact) -> None:
    bias = artifact.float_parameters.get(f"{layer}.bias")
    if bias is None:
        return  # what is added behind it is another layer's
    got = read_bias(node)
    dropped = got is None and not bias.any()  # the exporter leaves out what adds nothing
    if not dropped and (got is None or not torch.equal(got.reshape(-1), bias.to(got.dtype))):
        raise _fail(f"the bias of {layer} differs")
