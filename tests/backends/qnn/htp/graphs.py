"""Small graphs of the forms that Qualcomm's compiler takes or does not take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
ZERO = {"uint8": 128, "int8": 0, "uint16": 32768, "int16": 0}
LEVELS = {"uint8": 255, "int8": 255, "uint16": 65535, "int16": 65535}
TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "uint16": TensorProto.UINT16, "int16": TensorProto.INT16}
REACH = 8.0
"""Width of what activations can hold: values are drawn from a normal distribution of width 1."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scale_of(dtype: str, reach: float = REACH) -> float:
    """Step of an integer type whose range has that width."""
    return reach / LEVELS[dtype]


@dataclass
class Net:
    """Nodes and constants of a graph; every method adds some and returns the name of what they give."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)

    def const(self, name: str, array: Any, kind: int | None = None) -> str:
        self.constants.setdefault(name, np.asarray(array))
        if kind is not None:
            self.kinds[name] = kind
        return name

    def node(self, kind: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def params(self, x: str, scale: float, dtype: str, zero: int | None) -> tuple[str, str]:
        zero = ZERO[dtype] if zero is None else zero
        return self.const(f"{x}.scale", np.float32(scale)), self.const(f"{x}.zero", np.array(zero, dtype))

    def qdq(self, x: str, dtype: str, scale: float | None = None, zero: int | None = None, out: str = "") -> str:
        """Quantized and brought back."""
        out = out or f"{x}.dq"
        step, zero_point = self.params(x, scale or scale_of(dtype), dtype, zero)
        self.node("QuantizeLinear", [x, step, zero_point], f"{x}.q")
        return self.node("DequantizeLinear", [f"{x}.q", step, zero_point], out)

    def weight(self, name: str, array: Array, axis: int | None = 0, bits: int = 8) -> str:
        """Integers, with one scale per channel of an axis, or one for all."""
        axes = None if axis is None else tuple(i for i in range(array.ndim) if i != axis)
        top = 2 ** (bits - 1) - 1
        step = (np.abs(array).max(axis=axes) / top).astype(np.float32)
        wide = step if axis is None else np.expand_dims(step, axes or ())
        integers = np.clip(np.rint(array / wide), -top, top).astype(np.int8 if bits == 8 else ml_dtypes.int4)
        zero = np.zeros(step.shape, integers.dtype)
        inputs = [self.const(f"{name}.q", integers), self.const(f"{name}.s", step), self.const(f"{name}.z", zero)]
        return self.node("DequantizeLinear", inputs, f"{name}.dq", **({} if axis is None else {"axis": axis}))

    def model(
        self,
        inputs: Mapping[str, Sequence[int]],
        outputs: Mapping[str, Sequence[int]],
        types: Mapping[str, str] | None = None,
    ) -> bytes:
        """The file. ``types``: of inputs and outputs that are integers."""
        kinds = {name: TYPES[kind] for name, kind in (types or {}).items()}

        def ports(given: Mapping[str, Sequence[int]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), list(s)) for n, s in given.items()
            ]

        constants = [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in self.constants.items()]
        graph = helper.make_graph(self.nodes, "g", ports(inputs), ports(outputs), constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        data: bytes = onnx.shape_inference.infer_shapes(model).SerializeToString()
        return data


def chain(
    group: int, dtype: str = "uint16", channels: int = 320, layers: int = 6, side: int = 8, bits: int = 8
) -> bytes:
    """Convolutions one after the other whose activation scales depend on the step group, and whose weights do not."""
    numbers, net, x = rng(), Net(), "x"
    reach = REACH * (1 + 0.13 * group)
    for layer in range(layers):
        inner = net.qdq(x, dtype, scale_of(dtype, reach))
        array = numbers.normal(size=(channels, channels, 3, 3)) / np.sqrt(9 * channels)
        bias = net.const(f"b{layer}", np.zeros(channels, np.float32))
        x = net.node(
            "Conv",
            [inner, net.weight(f"w{layer}", array, bits=bits), bias],
            f"conv{layer}",
            pads=[1] * 4,
            kernel_shape=[3, 3],
        )
    net.qdq(x, dtype, scale_of(dtype, reach), out="y")
    return net.model({"x": [1, channels, side, side]}, {"y": [1, channels, side, side]})
