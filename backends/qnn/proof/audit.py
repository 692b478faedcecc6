"""Proof, from a saved graph alone, that it holds the artifact's integers, scales, zero_points and ranges of one step group."""

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
from dq_toolchain.backends.common.onnx.reading import Quantized, products, read_bias, read_weight
from dq_toolchain.backends.qnn.graph.numbers import Numbers, numbers_of
from dq_toolchain.backends.qnn.graph.rewrite import RESULT, weight_dtype
from dq_toolchain.backends.qnn.proof.reading import dtype_of, read_around
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.attention import RIGHT_OPERAND


def audit(graph: Any, artifact: Artifact, group: int) -> None:
    """Compare every layer and attention product of one graph.

    Args:
        group: the step group whose numbers it must hold.
    Raises:
        BackendError: anything differs, is missing or is there twice; the text names the site.
    """
    kept, left = set(artifact.float_layers), numbers_of(artifact)
    firsts = {site.name for site in artifact.sites if site.operand in RESULT}
    for node in products(graph):
        name = str(node.name)
        if name in artifact.layers:
            _check_layer(node, name, artifact)
            _check_around(node, name, ("input",), "output", left, group)
        elif name in kept:
            kept.remove(name)
            check_kept(node, name, artifact, read_bias(node, node.outputs[0]))
        elif name in firsts:
            layer, operand = name.rsplit(":", 1)
            _check_around(node, layer, (operand, RIGHT_OPERAND[operand]), RESULT[operand], left, group)
    check_all_found((*left, *kept))


def _check_around(
    node: Any, layer: str, operands: tuple[str, ...], result: str, left: dict[str, Numbers], group: int
) -> None:
    around = read_around(node)
    if len(around.operands) != len(operands):
        raise audit_error(f"{layer} has {len(around.operands)} operands that are no weight, expected {len(operands)}")
    for quantized, operand in zip((*around.operands, around.result), (*operands, result), strict=True):
        site = f"{layer}:{operand}"
        if quantized is None:
            raise audit_error(f"{site} is not quantized")
        if site not in left:
            raise audit_error(f"{site} is there twice")
        _check(quantized, site, left.pop(site), group)


def _check(quantized: Quantized, site: str, numbers: Numbers, group: int) -> None:
    if dtype_of(quantized) != numbers.dtype:
        raise audit_error(f"{site} is {dtype_of(quantized)}, expected {numbers.dtype}")
    check_numbers(quantized, site, float(numbers.scale[group]), int(numbers.zero_point[group]))


def _check_layer(node: Any, layer: str, artifact: Artifact) -> None:
    weights, found = artifact.layers[layer], read_weight(node.inputs[1])
    bits = artifact.sites[artifact.site_index(layer)].weight_bits
    if found is None:
        raise audit_error(f"the weights of {layer} are no integers")
    check_integers(found, layer, weights, turned=False, dtype=weight_dtype(bits, len(weights.weight_scale)))
    if found.scale is None or not torch.equal(found.scale, weights.weight_scale):
        raise audit_error(f"the weight scales of {layer} differ")
    if found.axis != 0:
        raise audit_error(f"the weight scales of {layer} run along axis {found.axis}, expected 0")
    if found.zero_point is None or found.zero_point.any():
        raise audit_error(f"the weights of {layer} have a zero_point other than 0")
    check_bias(layer, artifact, read_bias(node, node.outputs[0]))
