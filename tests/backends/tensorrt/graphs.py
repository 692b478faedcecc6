"""Small graphs that keep or break one rule of NVIDIA's builder each; the lint and the compiler must agree on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NODE = "conv"
RNG = np.random.default_rng(0)
WEIGHTS = RNG.integers(-127, 128, (64, 64, 3, 3)).astype(np.int8)
LINEAR = RNG.integers(-127, 128, (64, 64)).astype(np.int8)
SCALES = np.full(64, 0.01, np.float32)
IMAGE, TOKENS = [1, 64, 32, 32], [1, 256, 64]


def _qdq(x: str, out: str, scale: str = "scale", zero: str = "zero", axis: int = 1) -> list[Any]:
    return [
        helper.make_node("QuantizeLinear", [x, scale, zero], [f"{out}_q"], name=f"{out}.quantize", axis=axis),
        helper.make_node("DequantizeLinear", [f"{out}_q", scale, zero], [out], name=f"{out}.dequantize", axis=axis),
    ]


def _weight(axis: int = 0) -> list[Any]:
    return [helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], name="weight.dequantize", axis=axis)]


def _conv(x: str = "xd", kind: str = "Conv", **attributes: Any) -> list[Any]:
    return [helper.make_node(kind, [x, "wd"], ["y"], name=NODE, pads=[1, 1, 1, 1], **attributes)]


def _matmul() -> list[Any]:
    return [helper.make_node("MatMul", ["xd", "wd"], ["y"], name=NODE)]


def _concat() -> list[Any]:
    return [helper.make_node("Concat", ["a", "b"], ["c"], name="concat", axis=1)]


BASE = {"zero": np.int8(0), "scale": np.float32(0.05), "w": WEIGHTS, "ws": SCALES}
WIDE = BASE | {"w": np.concatenate([WEIGHTS, WEIGHTS], 1)}
X, X2, T = ("x", IMAGE), ("x2", IMAGE), ("x", TOKENS)

Graph = tuple[list[Any], list[tuple[str, list[int]]], dict[str, Any], str]
"""Nodes, inputs, constants, and what the lint says ("": the product is INT8)."""

GRAPHS: dict[str, Graph] = {
    "convolution": (_qdq("x", "xd") + _weight() + _conv(), [X], BASE, ""),
    "matmul": (_qdq("x", "xd") + _weight(1) + _matmul(), [T], BASE | {"w": LINEAR}, ""),
    "concatenation of equal scales": (
        _qdq("x", "a") + _qdq("x2", "b") + _concat() + _weight() + _conv("c"),
        [X, X2],
        WIDE,
        "",
    ),
    "quantizer behind a concatenation": (
        [helper.make_node("Concat", ["x", "x2"], ["c"], axis=1), *_qdq("c", "xd"), *_weight(), *_conv()],
        [X, X2],
        WIDE,
        "",
    ),
    "wrong axis of a convolution": (
        _qdq("x", "xd") + _weight(1) + _conv(),
        [X],
        BASE,
        "weight scales run along axis 1, output channels are axis 0",
    ),
    "wrong axis of a matmul": (
        _qdq("x", "xd") + _weight(0) + _matmul(),
        [T],
        BASE | {"w": LINEAR},
        "along axis 0, output channels are axis 1",
    ),
    "a scale per channel of the input": (
        _qdq("x", "xd", "scales", "zeros") + _weight() + _conv(),
        [X],
        BASE | {"scales": np.full(64, 0.05, np.float32), "zeros": np.zeros(64, np.int8)},
        "its input has 64 scales",
    ),
    "concatenation of different scales": (
        _qdq("x", "a") + _qdq("x2", "b", "other") + _concat() + _weight() + _conv("c"),
        [X, X2],
        WIDE | {"other": np.float32(0.1)},
        "tensors of different scales are concatenated",
    ),
    "transposed convolution": (
        _qdq("x", "xd") + _weight(1) + _conv(kind="ConvTranspose"),
        [X],
        BASE,
        "a transposed convolution runs in float",
    ),
    "float weights": (
        [*_qdq("x", "xd"), helper.make_node("Conv", ["xd", "wf"], ["y"], name=NODE, pads=[1, 1, 1, 1])],
        [X],
        BASE | {"wf": WEIGHTS.astype(np.float32)},
        "its weights are float",
    ),
    "concatenation of equal scales, one of them in float": (
        [*_qdq("x", "a"), helper.make_node("Concat", ["a", "x2"], ["c"], axis=1), *_weight(), *_conv("c")],
        [X, X2],
        WIDE,
        "a concatenation of tensors that are not quantized",
    ),
    "float input": (_weight() + _conv("x"), [X], BASE, "its input is not quantized"),
}
"""What builds: INT8 or, silently, in float."""

REFUSED: dict[str, Graph] = {
    "zero_point": (
        _qdq("x", "xd", zero="three") + _weight() + _conv(),
        [X],
        BASE | {"three": np.int8(3)},
        "zero_point .* must be 0",
    ),
    "unsigned": (
        _qdq("x", "xd", zero="u") + _weight() + _conv(),
        [X],
        BASE | {"u": np.uint8(128)},
        "zero_point .* must be 0 in int8",
    ),
    "computed scale": (
        _qdq("x", "xd", "s") + _weight() + _conv(),
        [X, ("s", [])],
        BASE,
        "the scale of its input is computed",
    ),
    "scale of zero": (
        _qdq("x", "xd", "none") + _weight() + _conv(),
        [X],
        BASE | {"none": np.float32(0)},
        "must be positive",
    ),
    "int4 weights": (
        [
            *_qdq("x", "xd"),
            helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=0, block_size=64),
            *_matmul(),
        ],
        [("x", [1, 256, 256])],
        BASE | {"w": RNG.integers(-7, 8, (256, 64)).astype(ml_dtypes.int4), "ws": np.full((4, 64), 0.01, np.float32)},
        "put them into int8 containers",
    ),
    "integer bias": (
        [
            *_qdq("x", "xd"),
            *_weight(),
            helper.make_node("DequantizeLinear", ["b", "ws"], ["bd"], axis=0),
            helper.make_node("Conv", ["xd", "wd", "bd"], ["y"], name=NODE, pads=[1, 1, 1, 1]),
        ],
        [X],
        BASE | {"b": np.zeros(64, np.int32)},
        "its bias is integers",
    ),
}
"""What the parser or the builder refuses, or dies of."""

COSTLY: dict[str, Graph] = {
    "three channels": (
        _qdq("x", "xd") + _weight() + _conv(),
        [("x", [1, 3, 32, 32])],
        BASE | {"w": WEIGHTS[:, :3]},
        "needs 16 channels, .* has 3",
    ),
    "channel groups": (
        _qdq("x", "xd") + _weight() + _conv(group=4),
        [X],
        BASE | {"w": WEIGHTS[:, :16]},
        "a convolution with 4 channel groups",
    ),
}
"""What this compiler may take, and another version was seen to refuse."""


def write(graph: Graph, path: Path) -> Path:
    """Save a graph; its output is ``y``."""
    nodes, inputs, constants, _ = graph
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs]
    made = helper.make_graph(
        nodes,
        path.stem,
        ports,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = 21 if any(value.dtype == ml_dtypes.int4 for value in constants.values()) else 19
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), str(path))
    return path
