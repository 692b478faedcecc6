"""What stands around a product: Q/DQ in front of it and behind it, with the integer types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dq_toolchain.backends.common.onnx.reading import Quantized, only_user, read_quantized, read_weight, tensor_of


@dataclass(frozen=True)
class Around:
    """Q/DQ of the operands and of the result of a product, None where there is none. ``is_layer``: its second operand is a weight,
    so it has one here."""

    operands: tuple[Quantized | None, ...]
    result: Quantized | None
    is_layer: bool


def read_around(node: Any) -> Around:
    """See ``Around``."""
    second = node.inputs[1]
    is_layer = read_weight(second) is not None or tensor_of(second) is not None
    operands = tuple(read_quantized(value) for value in node.inputs[: 1 if is_layer else 2])
    return Around(operands, read_result(node), is_layer)


def read_result(node: Any) -> Quantized | None:
    """Q/DQ behind a product, which reads nothing else."""
    quantize = only_user(node.outputs[0], "QuantizeLinear")
    dequantize = None if quantize is None else only_user(quantize.outputs[0], "DequantizeLinear")
    return None if dequantize is None else Quantized(quantize, dequantize)


def dtype_of(quantized: Quantized) -> str:
    """Integers that it makes: "UINT8", and so on. ONNX's own default, where there is no zero_point."""
    zero = quantized.quantize.inputs[2] if len(quantized.quantize.inputs) > 2 else None
    return "UINT8" if zero is None or zero.const_value is None else str(zero.const_value.dtype.name)
