"""What every audit of a saved graph compares: numbers of Q/DQ, integers, biases, layers kept in float."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.onnx.reading import Quantized, Weight, tensor_of
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact


def audit_error(text: str) -> BackendError:
    return BackendError(
        f"audit of the saved graph failed: {text}; nothing was exported; report it with calibration.json"
    )


def check_all_found(left: Collection[str]) -> None:
    """Raise BackendError if there is anything left that the graph was to hold."""
    if left:
        raise audit_error(f"{next(iter(left))} is not in the graph")


def check_numbers(quantized: Quantized, site: str, scale: float, zero_point: int = 0) -> None:
    """Raise BackendError unless Q and DQ both have this scale and zero_point."""
    for what, (got, zero) in zip(("quantize", "dequantize"), quantized.numbers, strict=True):
        if (
            got is None
            or got.numel() != 1
            or float(got) != scale
            or zero is None
            or not bool((zero == zero_point).all())
        ):
            raise audit_error(
                f"{what} of {site} has scale {got} and zero_point {zero}, the artifact has {scale:g} and {zero_point}"
            )


def check_integers(weight: Weight, layer: str, wanted: Tensor, turned: bool, dtype: str) -> None:
    """Raise BackendError unless a layer's integers are ``wanted``. ``turned``: they are (in, out)."""
    integers = weight.integers.T if turned else weight.integers
    if weight.dtype != dtype or not torch.equal(integers, wanted):
        raise audit_error(f"the integers of {layer} differ")


def check_kept(node: Any, layer: str, artifact: Artifact, bias: Tensor | None) -> None:
    """Raise BackendError unless weights and bias of a layer that is kept in float are the artifact's."""
    wanted = artifact.float_parameters[f"{layer}.weight"]
    got = tensor_of(node.inputs[1])
    turned = node.op_type == "MatMul"
    if got is None or not torch.equal(got, (wanted.T if turned else wanted).to(got.dtype)):
        raise audit_error(f"the weights of {layer}, kept in float, differ")
    check_bias(layer, artifact, bias)


def check_bias(layer: str, artifact: Artifact, got: Tensor | None) -> None:
    """Raise BackendError unless a layer's bias, as ``reading.read_bias`` finds it, is the artifact's."""
    compare_bias(layer, artifact.float_parameters.get(f"{layer}.bias"), got)


def compare_bias(layer: str, bias: Tensor | None, got: Tensor | None) -> None:
    """Raise BackendError unless what ``reading.read_bias`` finds is this bias."""
    if bias is None:
        return  # what is added behind it is another layer's
    dropped = got is None and not bias.any()  # the exporter leaves out what adds nothing
    if not dropped and (got is None or not torch.equal(got.reshape(-1), bias.to(got.dtype))):
        raise audit_error(f"the bias of {layer} differs")
