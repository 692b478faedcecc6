"""The forms of docs/QNN.md as small graphs: what Qualcomm's compiler takes in integers, and what it refuses or gets wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.qnn.graph.biases import bias_integers
from dq_toolchain.backends.qnn.htp import dump
from dq_toolchain.backends.qnn.htp.arithmetic import Sums
from dq_toolchain.backends.qnn.htp.session import open_session
from tests.backends.qnn.htp.graphs import LEVELS, ZERO, Array, Net, rng, scale_of

NODE = "product"
"""Name of the product in every graph."""
Outcome = Literal["integers", "refused", "float", "wrong"]
"""What the compiler makes of a form: "wrong" is integers whose numbers are not those of the graph."""


@dataclass(frozen=True)
class Form:
    """A product between integers.

    Attributes:
        model: its file, with integer inputs and outputs. feeds: random integers over their whole range.
        sums: of integer products, exact; None for what has no integers. dtype: of the result.
    """

    model: bytes
    feeds: dict[str, Array]
    sums: Sums | None
    dtype: str


@dataclass(frozen=True)
class Compiled:
    """What became of a form: the operation, and the integers that it gives."""

    op: dump.Op
    got: Array
    form: Form

    def steps(self, value: Tensor) -> Array:
        """Difference from real values, which are rounded and clipped, in steps."""
        info = np.iinfo(self.form.dtype)
        wanted = np.clip(np.rint(value.numpy() + ZERO[self.form.dtype]), info.min, info.max)
        return np.asarray(self.got.astype(np.float64) - wanted)


def compiled(form: Form, soc: str) -> Compiled:
    """Compile a form for a chip and execute it. Raises BackendError: it is refused."""
    with tempfile.TemporaryDirectory() as name:
        session = open_session(form.model, soc, options=dump.provider_options(Path(name)))
        (op,) = dump.ops_of(dump.read_dump(Path(name)), NODE)
    return Compiled(op, session.run(None, form.feeds)[0], form)


def integers(dtype: str, shape: tuple[int, ...], seed: int) -> Array:
    info = np.iinfo(dtype)
    return rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def _finish(
    net: Net, feeds: dict[str, Array], sums: Array, bias: Array | None, unit: Array, types: dict[str, str]
) -> Form:
    """A quantizer behind the product whose range just holds the values. ``unit``: of the sums; ``types`` has the result's as y."""
    result = types["y"]
    scale = np.float32(np.abs((sums if bias is None else sums + bias) * unit).max() * 2.02 / LEVELS[result])
    net.node("QuantizeLinear", [NODE, *net.params(NODE, float(scale), result, None)], "y")
    model = net.model({name: list(array.shape) for name, array in feeds.items()}, {"y": list(sums.shape)}, types)
    ratio = torch.from_numpy(np.asarray(unit / np.float64(scale)))
    held = None if bias is None else torch.from_numpy(bias)
    return Form(
        model, feeds, Sums(torch.from_numpy(sums), held, ratio, "16" in types.get("x", types.get("p", ""))), result
    )


def _operand(net: Net, name: str, array: Array, dtype: str, zero: int | None = None) -> tuple[str, Array, np.float64]:
    """A dequantized input, its integers without the zero point, and its scale."""
    scale, point = scale_of(dtype), ZERO[dtype] if zero is None else zero
    back = net.node("DequantizeLinear", [name, *net.params(name, scale, dtype, point)], f"{name}.dq")
    return back, array.astype(np.float64) - point, np.float64(np.float32(scale))


def weighted(
    kind: str, dtype: str, result: str = "", bits: int = 8, inner: int = 64, groups: int = 1, out: int = 48
) -> Form:
    """A product with integer weights, one scale per output channel, and a bias: Conv, ConvTranspose, Gemm or MatMul."""
    net, result, out = Net(), result or dtype, out if groups == 1 else inner
    x = integers(dtype, (1, inner, 8, 8) if kind.startswith("Conv") else (40, inner), 1)
    back, values, step = _operand(net, "x", x, dtype)
    shape, axis = {
        "Conv": ((out, inner // groups, 3, 3), 0), "ConvTranspose": ((inner, out, 3, 3), 1), "Gemm": ((out, inner), 0),
        "MatMul": ((inner, out), 1),
    }[kind]  # fmt: skip
    weight = net.weight("w", rng(2).normal(size=shape) / np.sqrt(inner), axis, bits)
    whole, unit = net.constants["w.q"].astype(np.float64), net.constants["w.s"].astype(np.float64) * step
    given = rng(3).normal(size=out).astype(np.float32)
    bias = bias_integers(torch.from_numpy(given), torch.from_numpy(unit)).numpy()
    inputs = [back, weight] if kind == "MatMul" else [back, weight, net.const("b", given)]
    types = {"x": dtype, "y": result}
    if kind.startswith("Conv"):
        net.node(kind, inputs, NODE, pads=[1] * 4, kernel_shape=[3, 3], group=groups)
        channels = (1, -1, 1, 1)
        sums = _convolved(values, whole, kind, groups)
        return _finish(net, {"x": x}, sums, bias.reshape(channels), unit.reshape(channels), types)
    net.node(kind, inputs, NODE, **({"transB": 1} if kind == "Gemm" else {}))
    if kind == "Gemm":
        return _finish(net, {"x": x}, values @ whole.T, bias, unit, types)
    return _finish(net, {"x": x}, values @ whole, None, unit, types)


def _convolved(x: Array, weight: Array, kind: str, groups: int) -> Array:
    """A 3x3 convolution with padding 1 in float64; transposed: of the flipped weight, which is (in, out)."""
    if kind == "ConvTranspose":
        weight = weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    height, width, each = x.shape[2], x.shape[3], weight.shape[0] // groups
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    parts = []
    for group in range(groups):
        own, some = (
            weight[group * each : (group + 1) * each],
            slice(group * weight.shape[1], (group + 1) * weight.shape[1]),
        )
        views = ((own[:, :, i, j], padded[:, some, i : i + height, j : j + width]) for i in range(3) for j in range(3))
        parts.append(sum(np.einsum("oi,nihw->nohw", kernel, view) for kernel, view in views))
    return np.concatenate(parts, axis=1)


def two_tensors(left: str, right: str, result: str = "", zero: int | None = None) -> Form:
    """A MatMul of two activations, as in attention. ``zero``: zero point of the second one, None is the middle."""
    net = Net()
    p, q = integers(left, (2, 64, 64), 1), integers(right, (2, 64, 48), 2)
    (a, first, step), (b, second, other) = _operand(net, "p", p, left), _operand(net, "q", q, right, zero)
    net.node("MatMul", [a, b], NODE)
    types = {"p": left, "q": right, "y": result or left}
    return _finish(net, {"p": p, "q": q}, first @ second, None, np.asarray(step * other), types)


def moved(same: bool = True) -> Form:
    """No product: integers that are reshaped and quantized again, with one scale (or not quite) and two zero points."""
    net, scale, (first, second) = Net(), scale_of("uint16"), (30000, 32768)
    x = integers("uint16", (4, 16, 32), 1)
    value = net.node("DequantizeLinear", ["x", *net.params("x", scale, "uint16", first)], "x.dq")
    value = net.node("Reshape", [value, net.const("shape", np.array([4, 512]))], NODE)
    own = float(np.float32(scale) * (1 if same else 1 + 2.0**-13))
    net.node("QuantizeLinear", [value, *net.params("y", own, "uint16", second)], "y")
    sums = (x.astype(np.float64) - first).reshape(4, 512)
    model = net.model({"x": list(x.shape)}, {"y": list(sums.shape)}, {"x": "uint16", "y": "uint16"})
    ratio = torch.tensor(np.float64(np.float32(scale)) / np.float64(np.float32(own)))
    return Form(model, {"x": x}, Sums(torch.from_numpy(sums), None, ratio, False), "uint16")


def without_result(kind: str, dtype: str) -> Form:
    """A product with quantized inputs alone: what TensorRT takes."""
    net = Net()
    shape = (1, 32, 8, 8) if kind == "Conv" else (2, 32, 32)
    if kind == "Conv":
        inputs = [net.qdq("x", dtype), net.weight("w", rng(2).normal(size=(32, 32, 3, 3)) / 17)]
        net.node(kind, inputs, NODE, pads=[1] * 4)
    else:
        net.node(kind, [net.qdq("x", dtype), net.qdq("z", dtype)], NODE)
    net.node("Identity", [NODE], "y")
    feeds = {name: rng(4).normal(size=shape).astype(np.float32) for name in (("x",) if kind == "Conv" else ("x", "z"))}
    model = net.model({name: list(shape) for name in feeds}, {"y": list(shape)})
    return Form(model, feeds, None, "uint8")


FORMS: dict[str, tuple[Callable[[], Form], Outcome]] = {
    **{f"{kind} {dtype}": (partial(weighted, kind, dtype), "integers")
       for kind in ("Conv", "ConvTranspose", "Gemm", "MatMul") for dtype in ("uint8", "uint16")},
    **{f"{kind} {dtype} weights of 4 bits": (partial(weighted, kind, dtype, bits=4), "integers")
       for kind in ("Conv", "Gemm", "MatMul") for dtype in ("uint8", "uint16")},
    "Conv uint16 of one channel": (partial(weighted, "Conv", "uint16", inner=1), "integers"),
    **{f"Conv {dtype} in {groups} groups, weights of {bits} bits":
       (partial(weighted, "Conv", dtype, groups=groups, bits=bits), "integers")
       for dtype in ("uint8", "uint16") for groups in (4, 64) for bits in (4, 8)},
    "MatMul of uint8 and uint8": (partial(two_tensors, "uint8", "uint8"), "integers"),
    "MatMul of uint16 and uint8": (partial(two_tensors, "uint16", "uint8"), "integers"),
    "Conv without a quantized result, uint8": (partial(without_result, "Conv", "uint8"), "refused"),
    "Conv without a quantized result, uint16": (partial(without_result, "Conv", "uint16"), "refused"),
    "MatMul of two without a quantized result": (partial(without_result, "MatMul", "uint8"), "float"),
    "Conv uint8 to uint16": (partial(weighted, "Conv", "uint8", "uint16"), "refused"),
    "Gemm uint8 to uint16": (partial(weighted, "Gemm", "uint8", "uint16"), "refused"),
    "MatMul of uint8 and uint8 to uint16": (partial(two_tensors, "uint8", "uint8", "uint16"), "float"),
    "MatMul of uint16 and uint8 with zero 120": (partial(two_tensors, "uint16", "uint8", zero=120), "wrong"),
    "MatMul of uint16 and uint8 with zero 127": (partial(two_tensors, "uint16", "uint8", zero=127), "wrong"),
    "MatMul of uint16 and uint16": (partial(two_tensors, "uint16", "uint16"), "wrong"),
    "integers that were moved, with one scale and two zero points": (partial(moved), "wrong"),
    "Conv uint16 weights of 4 bits to one channel": (partial(weighted, "Conv", "uint16", bits=4, out=1), "refused"),
    "MatMul of int16 and int16": (partial(two_tensors, "int16", "int16"), "refused"),
    "MatMul of int16 and int8": (partial(two_tensors, "int16", "int8"), "refused"),
}  # fmt: skip
"""Name -> graph, and what becomes of it on every chip."""
