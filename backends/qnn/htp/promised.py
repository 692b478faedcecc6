"""What a graph asks the compiler for, product by product: the integer types around it, and the scales of its activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dq_toolchain.backends.common.onnx.libraries import onnx_ir
from dq_toolchain.backends.common.onnx.reading import only_user, producer
from dq_toolchain.backends.qnn.htp.dump import Op, TensorInfo, ops_of

KINDS = {
    "Conv": ("Conv2d", "DepthWiseConv2d"),
    "ConvTranspose": ("TransposeConv2d",),
    "Gemm": ("FullyConnected", "MatMul"),
    "MatMul": ("MatMul", "FullyConnected"),
}
"""ONNX operator of a product -> the QNN operations that it may become."""


@dataclass(frozen=True)
class Promise:
    """A product between integers. Weights have no scale here: they are per channel, and audited in the ONNX file.

    Attributes:
        name: of the node, which is its site's. operands: two. result: None where it is float, which nothing promises.
    """

    name: str
    kind: str
    operands: tuple[TensorInfo | None, ...]
    result: TensorInfo | None


def promises(path: Path) -> tuple[Promise, ...]:
    """Every product of a graph file, in order; an operand or result that is float is None."""
    return tuple(_promises(onnx_ir().load(path).graph))


def _promises(graph: Any) -> Iterator[Promise]:
    for node in graph:
        if node.op_type in KINDS:
            quantizer = only_user(node.outputs[0], "QuantizeLinear")
            result = None if quantizer is None else _numbers(quantizer)
            yield Promise(str(node.name), node.op_type, tuple(_operand(value) for value in node.inputs[:2]), result)


def _operand(value: Any) -> TensorInfo | None:
    back = producer(value, "DequantizeLinear")
    if back is None:
        return None
    constant = back.inputs[0].const_value
    if constant is not None:
        return TensorInfo(str(back.inputs[0].name), constant.dtype.name.lower(), None, None)
    return _numbers(back)


def _numbers(node: Any) -> TensorInfo | None:
    """Type, scale and zero point of a quantizer or dequantizer with one scale."""
    scale, zero = (value.const_value for value in node.inputs[1:3])
    if scale is None or zero is None or scale.numpy().size != 1:
        return None
    integers = zero.numpy()
    return TensorInfo(
        str(node.inputs[0].name), str(integers.dtype), float(scale.numpy().reshape(())), int(integers.reshape(()))
    )


def fault(promise: Promise, ops: tuple[Op, ...]) -> str | None:
    """Why what was compiled is not what the graph asks for; None where it is."""
    asked = (*promise.operands, promise.result)
    if any(tensor is None for tensor in asked):
        return "the graph has no integers around it"
    found = [op for op in ops_of(ops, promise.name) if op.kind in KINDS[promise.kind]]
    if len(found) != 1:
        return f"the compiler made {len(found)} products of it, expected 1"
    op = found[0]
    for place, want, got in zip(
        ("first operand", "second operand", "result"), asked, (*op.inputs[:2], op.outputs[0]), strict=True
    ):
        assert want is not None
        if not got.is_integer:
            return f"the compiler runs it in float, as {op}"
        if got.dtype != want.dtype.replace("int4", "int8"):  # what the compiler is given of 4 bits is called int8 too
            return f"its {place} is {got.dtype} in the compiled graph, the file has {want.dtype}"
        if want.scale is not None and not _equal(want, got):
            return (
                f"its {place} has scale {got.scale} and zero point {got.zero_point} in the compiled graph, the file has "
                f"{want.scale} and {want.zero_point}"
            )
    return None


def _equal(want: TensorInfo, got: TensorInfo) -> bool:
    return (
        got.scale is not None and np.float32(got.scale) == np.float32(want.scale) and got.zero_point == want.zero_point
    )
