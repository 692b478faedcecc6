"""Proof, from a saved graph alone, that it holds the artifact's integers, scales, zero_points and ranges of one step group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.onnx.audit import (
    audit_error,
    check_all_found,
    check_integers,
    check_kept,
    check_numbers,
    compare_bias,
)
from dq_toolchain.backends.common.onnx.reading import Quantized, products, read_bias, read_weight
from dq_toolchain.backends.qnn.graph.biases import npu_biases
from dq_toolchain.backends.qnn.graph.numbers import Numbers, numbers_of
from dq_toolchain.backends.qnn.graph.rewrite import RESULT
from dq_toolchain.backends.qnn.graph.weights import Form, weight_forms
from dq_toolchain.backends.qnn.proof.reading import dtype_of, read_around
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.attention import RIGHT_OPERAND


def audit(graph: Any, artifact: Artifact, group: int, npu: bool = False) -> None:
    """Compare every layer and attention product of one graph.

    Args:
        group: the step group whose numbers it must hold. npu: with the biases for the NPU.
    Raises:
        BackendError: anything differs, is missing or is there twice; the text names the site.
    """
    kept, left, forms = set(artifact.float_layers), numbers_of(artifact), weight_forms(artifact)
    biases = npu_biases(artifact, group) if npu else _biases(artifact)
    firsts = {site.name for site in artifact.sites if site.operand in RESULT}
    for node in products(graph):
        name = str(node.name)
        if name in artifact.layers:
            _check_layer(node, name, artifact, forms[name])
            compare_bias(name, biases.get(name), read_bias(node, node.outputs[0]))
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


def _check_layer(node: Any, layer: str, artifact: Artifact, form: Form) -> None:
    weights, found = artifact.layers[layer], read_weight(node.inputs[1])
    if found is None:
        raise audit_error(f"the weights of {layer} are no integers")
    check_integers(found, layer, form.integers(weights), turned=False, dtype=form.dtype)
    if found.scale is None or not torch.equal(found.scale, form.scale(weights)):
        raise audit_error(f"the weight scales of {layer} differ")
    if found.axis != 0:
        raise audit_error(f"the weight scales of {layer} run along axis {found.axis}, expected 0")
    if found.zero_point is None or found.zero_point.any():
        raise audit_error(f"the weights of {layer} have a zero_point other than 0")


def _biases(artifact: Artifact) -> dict[str, Tensor]:
    named = {layer: artifact.float_parameters.get(f"{layer}.bias") for layer in artifact.layers}
    return {layer: bias for layer, bias in named.items() if bias is not None}
