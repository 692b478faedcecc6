"""What Qualcomm's compiler makes of a graph, said without it: the first rule that each product or quantizer breaks.

The compiler refuses some graphs that the ONNX standard allows, computes others in fp16 without a word, and compiles some to
wrong numbers. Each rule was measured with Qualcomm's own compiler and emulator; `--check-build` repeats what it can see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dq_toolchain.backends.common.onnx.reading import (
    PRODUCTS,
    Quantized,
    producer,
    products,
    read_weight,
    tensor_of,
)
from dq_toolchain.backends.qnn.graph.clips import Ends, clips, has_wrong_rows, quantized_before
from dq_toolchain.backends.qnn.graph.norms import norm_at
from dq_toolchain.backends.qnn.graph.permutations import MOST_AXES
from dq_toolchain.backends.qnn.proof.reading import Around, dtype_of, read_around

ACTIVATIONS = ("UINT8", "UINT16")
WEIGHTS = ("INT4", "INT8")
WEIGHT_AXIS = {"Conv": 0, "Gemm": 0, "MatMul": 1}
PICTURE_WEIGHT = 4
"""Axes of the weight of a convolution that was seen to run in integers."""
SECOND_ZERO = 128
INT32 = 2**31
SINUSOIDS = ("Sin", "Cos")
NOT_THERE = ("Einsum", "GroupNormalization")
"""Operations that the compiler does not take between integers."""


@dataclass(frozen=True)
class Placement:
    """What becomes of a product, or of a node that is none where that breaks a rule. ``name``: of the node; ``why``: "" where it is
    integer as it is written."""

    name: str
    op_type: str
    why: str

    @property
    def integer(self) -> bool:
        return not self.why


def lint(graph: Any) -> tuple[Placement, ...]:
    """Every product that has something of integers around it, in the order of the graph; then what else breaks a rule."""
    found = [
        Placement(str(node.name), node.op_type, next((text for rule in RULES for text in rule(node, around)), ""))
        for node in products(graph)
        for around in [read_around(node)]
        if _is_meant_to_be_integer(node, around)
    ]
    return (*found, *_elsewhere(graph))


def _is_meant_to_be_integer(node: Any, around: Around) -> bool:
    return any(around.operands) or around.result is not None or read_weight(node.inputs[1]) is not None


def _elsewhere(graph: Any) -> Iterator[Placement]:
    for node in graph:
        if node.op_type in SINUSOIDS:
            yield Placement(
                str(node.name), node.op_type, "sinusoids are wrong in fp16 near step 1000; make them an input"
            )
        if node.op_type in NOT_THERE:
            yield Placement(str(node.name), node.op_type, f"{node.op_type} is not among what the compiler takes there")
        if node.op_type == "Pad":
            yield Placement(
                str(node.name),
                node.op_type,
                "a padding is compiled to wrong numbers in some sizes; make it a concatenation",
            )
        if (norm := norm_at(node)) is not None and norm.wrong:
            yield Placement(
                str(node.name),
                node.op_type,
                "an RMS norm is compiled to wrong numbers as it is here; write it over rows, with a weight per channel behind it",
            )
        if any(len(value.shape) > MOST_AXES for value in node.outputs if value.shape is not None):
            yield Placement(
                str(node.name), node.op_type, f"it has more than {MOST_AXES} axes, which the NPU does not have"
            )
        if node.op_type == "QuantizeLinear" and not (_is_behind(node) or _is_in_front(node) or _is_of_a_table(node)):
            yield Placement(
                str(node.name),
                node.op_type,
                "integers between products: compiled so, a network was 29 % wrong; leave softmax, norms and activations in float",
            )


def _is_behind(quantize: Any) -> bool:
    node = quantize.inputs[0].producer()
    return node is not None and node.op_type in PRODUCTS


def _is_in_front(quantize: Any) -> bool:
    users = [user for node, _ in quantize.outputs[0].uses() for user, _ in node.outputs[0].uses()]
    return bool(users) and all(user.op_type in PRODUCTS for user in users)


def _is_of_a_table(quantize: Any) -> bool:
    """Whether it gives back the integers of a table, of which rows were looked up."""
    gather = producer(quantize.inputs[0], "Gather")
    held = None if gather is None else producer(gather.inputs[0], "DequantizeLinear")
    return held is not None and tensor_of(held.inputs[0]) is not None and held.inputs[1:] == quantize.inputs[1:]


def why_not_integer(op_type: str, weight_shape: tuple[int, ...]) -> str:
    """What keeps a layer of this shape from integers, "" if nothing does. Channel groups do not: depthwise was executed too.

    Args:
        weight_shape: (out, in / groups, ...).
    """
    if op_type == "ConvTranspose":
        return "a transposed convolution was not seen to run in integers"
    if op_type == "Conv" and len(weight_shape) != PICTURE_WEIGHT:
        return "a convolution of one dimension was not seen to run in integers"
    return ""


def _kind(node: Any, around: Around) -> list[str]:
    shape = node.inputs[1].shape
    why = why_not_integer(node.op_type, (1,) * PICTURE_WEIGHT if shape is None else tuple(shape.numpy()))
    return [why] if why else []


def _operands(node: Any, around: Around) -> list[str]:
    """Of a layer the input, of an attention product both operands."""
    names = ("input",) if around.is_layer else ("first operand", "second operand")
    found = []
    for name, quantized in zip(names, around.operands, strict=True):
        found += [f"its {name} is not quantized"] if quantized is None else _numbers(quantized, f"its {name}")
    return found[:1]


def _result(node: Any, around: Around) -> list[str]:
    if around.result is None:
        text = "its result is not quantized: "
        return [text + ("weights per channel go to the CPU" if around.is_layer else "it is computed in fp16")]
    return _numbers(around.result, "its result")


def _numbers(quantized: Quantized, what: str) -> list[str]:
    (scale, zero), (back_scale, back_zero) = quantized.numbers
    dtype = dtype_of(quantized)
    if scale is None or back_scale is None:
        return [f"the scale of {what} is computed, the compiler takes constants only"]
    if scale.numel() != 1:
        return [f"{what} has {scale.numel()} scales, the compiler takes one per tensor"]
    if float(scale) <= 0 or not scale.isfinite().all():
        return [f"the scale of {what} is {float(scale):g}, it must be positive"]
    if dtype not in ACTIVATIONS:
        return [
            f"{what} is {dtype}: int16 does not compile in products of two tensors, int8 softmax is wrong; use UINT16 or UINT8"
        ]
    if zero is None or back_zero is None or float(scale) != float(back_scale) or int(zero) != int(back_zero):
        return [f"quantize and dequantize of {what} differ"]
    return []


def _quantizer(node: Any, around: Around) -> list[str]:
    """Of a first operand: what the compiler quantizes wrongly; see ``graph.clips``."""
    first = around.operands[0]
    assert first is not None
    if producer(first.source, "Mul") is not None:
        return []
    dtype, ends = dtype_of(first), _ends(first.dequantize)
    shape = [] if first.source.shape is None else [int(size) for size in first.source.shape]
    if has_wrong_rows(shape, 16 if dtype == "UINT16" else 8):
        return [
            f"its input has {shape[-2]} rows in 16 bits, which come out wrong or are refused unless a multiplication is in "
            "front of the quantizer"
        ]
    assert ends is not None

    def ends_of(value: Any) -> Ends | None:
        back = producer(value, "DequantizeLinear")
        return _ends(back) if back is not None and dtype_of(Quantized(back, back)) == dtype else None

    if any(clips(before, ends) for before in quantized_before(first.source, ends_of)):
        return [
            "what the quantizer of its input clips would come through: that of another product's result is in front of it"
        ]
    return []


def _ends(dequantize: Any) -> Ends | None:
    scale, zero = (tensor_of(value) for value in dequantize.inputs[1:3])
    if scale is None or zero is None or scale.numel() != 1:
        return None
    last = 65535 if str(dequantize.inputs[2].const_value.dtype.name) == "UINT16" else 255
    zero = zero.to(torch.int32)
    return -zero * scale, (last - zero) * scale


def _types(node: Any, around: Around) -> list[str]:
    first, result = around.operands[0], around.result
    assert first is not None
    assert result is not None
    taken, given = dtype_of(first), dtype_of(result)
    return [f"it takes {taken} and gives {given}; the compiler takes one type for both"] if taken != given else []


def _second_operand(node: Any, around: Around) -> list[str]:
    if around.is_layer:
        return []
    second = around.operands[1]
    assert second is not None
    dtype, (_, zero) = dtype_of(second), second.numbers[0]
    if dtype != "UINT8":
        return [f"its second operand is {dtype}, which the compiler rounds to 8 bits; use UINT8"]
    if zero is None or int(zero) != SECOND_ZERO:
        return [f"the zero_point of its second operand is {zero}, only {SECOND_ZERO} gives right numbers"]
    return []


def _weights(node: Any, around: Around) -> list[str]:
    if tensor_of(node.inputs[1]) is not None:
        return ["its weights are float"]
    weight = read_weight(node.inputs[1])
    if weight is None:
        return []  # a product of two tensors
    if weight.dtype not in WEIGHTS:
        return [f"its weights are {weight.dtype}, the compiler takes {' and '.join(WEIGHTS)}"]
    if weight.dtype == "INT4" and node.op_type == "Conv" and len(weight.integers) == 1:
        return ["its weights are INT4 and it has one output channel, which the compiler does not take; use INT8"]
    if weight.scale is None or weight.scale.numel() == 0 or float(weight.scale.min()) <= 0:
        return ["its weight scales are computed or not positive"]
    if weight.zero_point is None or bool(weight.zero_point.any()):
        return ["its weights have a zero_point other than 0, or none"]
    if weight.scale.dim() > 1:
        return ["its weights have scales per block, which become fp16; use one per output channel"]
    axis = WEIGHT_AXIS[node.op_type]
    if node.op_type == "Gemm" and not ("transB" in node.attributes and node.attributes["transB"].value):
        axis = 1
    if weight.scale.numel() > 1 and weight.axis != axis:
        return [f"its weight scales run along axis {weight.axis}, output channels are axis {axis}"]
    return []


def _bias(node: Any, around: Around) -> list[str]:
    """A float bias becomes int32 in steps of input scale times weight scale."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return []
    bias, weight = tensor_of(node.inputs[2]), read_weight(node.inputs[1])
    if bias is None:
        integers = producer(node.inputs[2], "DequantizeLinear") is not None
        return ["its bias is integers, the compiler makes its own of floats" if integers else "its bias is computed"]
    first = around.operands[0]
    assert first is not None
    scale = first.numbers[0][0]
    if weight is None or weight.scale is None or scale is None:
        return []
    steps = float((bias.double().abs() / (weight.scale.double() * scale.double())).max())
    return [f"its bias is {steps:.3g} steps, in int32 fit {INT32:.3g}"] if steps >= INT32 else []


RULES: tuple[Callable[[Any, Around], list[str]], ...] = (
    _kind,
    _operands,
    _result,
    _types,
    _quantizer,
    _second_operand,
    _weights,
    _bias,
)
