"""Which products of a graph NVIDIA's builder runs in INT8, and for each other one the rule that it breaks.

The builder says nothing when it falls back to float, and refuses or crashes on some graphs that the ONNX standard
allows. These rules were measured with NVIDIA's own parser and compiler (docs/TENSORRT.md); `--check-build` repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dq_toolchain.backends.common.onnx.reading import (
    Quantized,
    producer,
    products,
    read_quantized,
    read_weight,
    tensor_of,
)

MIN_CHANNELS = 16
"""Of the input and of the output of an INT8 convolution."""
MAX_TOKENS = 512
"""Longest sequence of an INT8 attention kernel; longer ones become separate products around a float softmax."""
PICTURE_WEIGHT = 4
"""Axes of the weight of a convolution that was seen to run in INT8."""
HEAD_DIMS = (16, 32, 64)
"""Channels of a head for which there is an INT8 attention kernel."""
WEIGHT_AXIS = {"Conv": 0, "Gemm": 0, "MatMul": 1}


@dataclass(frozen=True)
class Placement:
    """Where a product will run. ``name``: the layer, or the attention product's first site; ``why_float``: "" for INT8."""

    name: str
    op_type: str
    why_float: str

    @property
    def int8(self) -> bool:
        return not self.why_float


def lint(graph: Any) -> tuple[Placement, ...]:
    """Every product that has a quantized operand or integer weights, in the order of the graph."""
    found = []
    for node in products(graph):
        why = next((text for rule in RULES for text in rule(node)), "")
        if not why or _is_meant_to_be_int8(node):
            found.append(Placement(str(node.name), node.op_type, why))
    return tuple(found)


def _is_meant_to_be_int8(node: Any) -> bool:
    return any(map(_has_integers, node.inputs[:2])) or read_weight(node.inputs[1]) is not None


def _has_integers(value: Any) -> bool:
    """Itself, or any part of what is concatenated into it: joint attention in float concatenates float picture and text."""
    concat = producer(value, "Concat")
    return any(read_quantized(part) is not None for part in ([value] if concat is None else concat.inputs))


def why_float(op_type: str, weight_shape: tuple[int, ...], groups: int = 1) -> str:
    """What keeps a layer of this shape from an INT8 kernel, "" if nothing does.

    Args:
        weight_shape: (out, in / groups, ...).
    """
    if op_type == "ConvTranspose":
        return "a transposed convolution runs in float whatever its weights are"
    if op_type != "Conv":
        return ""
    if groups != 1:
        return f"a convolution with {groups} channel groups was not seen to run in INT8"
    if len(weight_shape) != PICTURE_WEIGHT:
        return "a convolution of one dimension was not seen to run in INT8"
    channels = min(weight_shape[:2])
    if channels < MIN_CHANNELS:
        return f"an INT8 convolution needs {MIN_CHANNELS} channels, this one has {channels}"
    return ""


def _kind(node: Any) -> list[str]:
    shape = (
        tuple(node.inputs[1].shape.numpy()) if node.inputs[1].shape is not None else (MIN_CHANNELS, MIN_CHANNELS, 1, 1)
    )
    groups = int(node.attributes["group"].value) if "group" in node.attributes else 1
    why = why_float(node.op_type, shape, groups)
    return [why] if why else []


def _input(node: Any) -> list[str]:
    """Of a layer the input, of an attention product both operands."""
    is_layer = read_weight(node.inputs[1]) is not None or tensor_of(node.inputs[1]) is not None
    return [text for value in node.inputs[: 1 if is_layer else 2] for text in _operand(value)][:1]


def _operand(value: Any) -> list[str]:
    quantized = read_quantized(value)
    if quantized is not None:
        return _numbers(quantized)
    concat = producer(value, "Concat")
    if concat is None:
        transposed = producer(value, "Transpose")
        return _operand(transposed.inputs[0]) if transposed is not None else ["its input is not quantized"]
    parts = [read_quantized(part) for part in concat.inputs]
    if any(part is None for part in parts):
        return ["its input is a concatenation of tensors that are not quantized"]
    scales = [part.numbers[0][0] for part in parts if part is not None]
    if len({None if scale is None else tuple(scale.reshape(-1).tolist()) for scale in scales}) > 1:
        return ["tensors of different scales are concatenated before it; cut the convolution in two instead"]
    return [text for part in parts if part is not None for text in _numbers(part)]


def _numbers(quantized: Quantized) -> list[str]:
    (scale, zero), (back_scale, back_zero) = quantized.numbers
    if scale is None or back_scale is None:
        return ["the scale of its input is computed, the builder takes constants only"]
    if scale.numel() != 1:
        return [f"its input has {scale.numel()} scales, one per channel; the builder takes one per tensor"]
    if float(scale) <= 0 or not scale.isfinite().all():
        return [f"the scale of its input is {float(scale):g}, it must be positive"]
    if zero is None or str(zero.dtype) != "torch.int8" or int(zero) != 0:
        return [f"the zero_point of its input must be 0 in int8, got {zero}"]
    if float(scale) != float(back_scale) or back_zero is None or int(back_zero) != 0:
        return ["quantize and dequantize of its input differ"]
    return []


def _weights(node: Any) -> list[str]:
    if tensor_of(node.inputs[1]) is not None:
        return ["its weights are float"]
    weight = read_weight(node.inputs[1])
    if weight is None:
        return []  # a product of two tensors
    if weight.dtype != "INT8":
        return [f"its weights are {weight.dtype}, which does not build with INT8 inputs; put them into int8 containers"]
    if weight.scale is None or weight.scale.numel() == 0 or float(weight.scale.min()) <= 0:
        return ["its weight scales are computed or not positive"]
    if weight.zero_point is not None and bool(weight.zero_point.any()):
        return ["its weights have a zero_point, which must be 0"]
    axis = WEIGHT_AXIS[node.op_type]
    if node.op_type == "Gemm" and not ("transB" in node.attributes and node.attributes["transB"].value):
        axis = 1
    if weight.scale.numel() > 1 and weight.axis != axis:
        return [f"its weight scales run along axis {weight.axis}, output channels are axis {axis}"]
    return []


def _bias(node: Any) -> list[str]:
    has_integers = len(node.inputs) > 2 and producer(node.inputs[2], "DequantizeLinear") is not None
    return ["its bias is integers, which the parser refuses; leave it in float"] if has_integers else []


def _attention(node: Any) -> list[str]:
    """Products of two tensors: the scores (B, T, U) of q and k, and what probs (B, T, U) and v make."""
    if read_weight(node.inputs[1]) is not None or tensor_of(node.inputs[1]) is not None:
        return []
    left, right = (tuple(value.shape.numpy()) for value in node.inputs[:2])
    values = producer(read_quantized(node.inputs[0]).source, "Softmax") is not None  # type: ignore[union-attr]
    tokens, head = (max(left[-2:]), right[-1]) if values else (max(left[-2], right[-1]), left[-1])
    if tokens > MAX_TOKENS:
        return [f"INT8 attention takes {MAX_TOKENS} tokens, here are {tokens}"]
    if head not in HEAD_DIMS:
        return [f"INT8 attention takes heads of {', '.join(map(str, HEAD_DIMS))} channels, here are {head}"]
    return []


RULES: tuple[Callable[[Any], list[str]], ...] = (_kind, _input, _weights, _bias, _attention)
