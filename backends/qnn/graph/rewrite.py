"""Puts the artifact's integers and scales into a float graph: quantized in front of every product and behind it.

    x -> Q -> DQ -> Conv(DQ(weights), bias) -> Q -> DQ
    x (B, T, C) -> Reshape (B T, C) -> Q -> DQ -> Gemm(DQ(weights), bias) -> Q -> DQ -> Reshape (B, T, O)
    a -> Q16 -> DQ, b -> Q8 (zero_point 128) -> DQ, MatMul -> Q16 -> DQ

Only so does Qualcomm's compiler make integers of a product, and only so is a bias part of what is quantized behind it, as it
is part of the artifact's range. Softmax, norms and activations stay in float. What was found is audited from the file later.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.common.onnx.building import GraphBuilder, Product, find_products
from dq_toolchain.backends.common.onnx.libraries import onnx_ir
from dq_toolchain.backends.common.onnx.reading import only_user, tensor_of
from dq_toolchain.backends.qnn.graph.clips import clips, has_wrong_rows, ones_for, quantized_before
from dq_toolchain.backends.qnn.graph.norms import rewrite_norms
from dq_toolchain.backends.qnn.graph.numbers import Numbers, numbers_of
from dq_toolchain.backends.qnn.graph.paddings import rewrite_paddings
from dq_toolchain.backends.qnn.graph.permutations import turn_permutations
from dq_toolchain.backends.qnn.graph.sigmoids import rewrite_sigmoids
from dq_toolchain.backends.qnn.graph.weights import weight_forms
from dq_toolchain.toolchain.formats.artifact import Artifact

EXPORTED, OPSET = 19, 21
"""What torch exports, with group normalisation as instance normalisation between reshapes: as one operation of opset 21 the
compiler does not take it between Q/DQ. And what the graph says: uint16 and int4 are there. What networks are made of means the
same in both."""
RESULT = {"q": "scores", "probs": "values"}
"""First operand of an attention product -> what its result is called."""
INTEGERS = {"UINT8": np.uint8, "UINT16": np.uint16}


def scale_name(site: str) -> str:
    return f"{site}.scale"


def zero_name(site: str) -> str:
    return f"{site}.zero_point"


class Rewriter(GraphBuilder):
    """One pass over a float graph, which is changed in place."""

    def __init__(self, model: Any, artifact: Artifact) -> None:
        super().__init__(model)
        self.artifact, self.numbers = artifact, numbers_of(artifact)
        self.forms = weight_forms(artifact)
        self.quantized: dict[Any, Any] = {}
        self.results: dict[Any, Numbers] = {}
        self.rows: dict[Any, Any] = {}

    def run(self) -> Any:
        """The model, with nothing in it that is not used.

        Raises:
            BackendError: a layer or an attention product of the artifact is not in the graph, or is there twice.
        """
        rewrite_paddings(self)
        for product in find_products(self.graph, self.artifact):
            product.node.name = product.name
            if product.kind == "layer" and product.node.op_type in ("MatMul", "Gemm"):
                self._linear(product)
            elif product.kind == "layer":
                product.node.replace_input_with(1, self._weight(product))
                self._around(product, ["input"], "output")
            elif product.kind == "attention":
                self._around(product, list(product.operands), RESULT[product.operands[0]])
        rewrite_sigmoids(self)
        rewrite_norms(self)
        turn_permutations(self)
        self.model.opset_imports[""] = OPSET
        return self.finish()

    def _around(self, product: Product, operands: list[str], result: str) -> None:
        """Q/DQ in front of the operands and behind the result."""
        node = product.node
        for place, operand in enumerate(operands):
            node.replace_input_with(place, self._quantize(node, node.inputs[place], f"{product.layer}:{operand}"))
        out, users = node.outputs[0], list(node.outputs[0].uses())
        site = f"{product.layer}:{result}"
        q = self._q(node, out, site, self.numbers[site], after=True)
        last = self._dq(q.producer(), q, site, out.shape, after=True)
        self.results[last] = self.numbers[site]
        self.instead(out, users, last, f"{site}.float")

    def _linear(self, product: Product) -> None:
        """Rows of features (R, C) through a Gemm with the bias in it, whatever the exporter made of it."""
        node, layer = product.node, product.layer
        x, out, bias = node.inputs[0], node.outputs[0], self.artifact.float_parameters.get(f"{layer}.bias")
        add = only_user(out, "Add")
        if len(node.inputs) < 3 and add is not None and bias is not None and _adds(add, out, bias):
            out = add.outputs[0]
        shape, width = [int(size) for size in out.shape], int(out.shape[-1])
        inputs = [self._rows(node, x), self._weight(product)]
        inputs += [] if bias is None else [self.constant(f"{layer}.bias", bias.contiguous())]
        users = list(out.uses())
        result = self.node(node, "Gemm", inputs, layer, [prod(shape[:-1]), width], {"transB": 1})
        gemm = result.producer()
        last = result
        if len(shape) != 2:
            to = self.constant(f"shape.{'x'.join(map(str, shape))}", torch.tensor(shape))
            last = self.node(gemm, "Reshape", [result, to], f"{layer}.rows_back", shape, after=True)
        self.instead(out, users, last, f"{layer}.replaced")
        self._around(Product(gemm, layer, "layer"), ["input"], "output")

    def _rows(self, before: Any, x: Any) -> Any:
        """(..., C) -> (R, C); the same tensor once."""
        if len(x.shape) == 2:
            return x
        if x not in self.rows:
            flat = [prod(int(size) for size in x.shape[:-1]), int(x.shape[-1])]
            to = self.constant(f"shape.{'x'.join(map(str, flat))}", torch.tensor(flat))
            self.rows[x] = self.node(before, "Reshape", [x, to], f"{x.name}.rows", flat)
        return self.rows[x]

    def _weight(self, product: Product) -> Any:
        """Integers (out, in, ...) behind a DQ of axis 0, with explicit zero_points, which are 0."""
        layer, weights, form = product.layer, self.artifact.layers[product.layer], self.forms[product.layer]
        dtype = form.dtype
        inputs = [
            self.constant(f"{layer}.weight_q", integers(form.integers(weights), dtype, f"{layer}.weight_q")),
            self.constant(f"{layer}.weight_scale", form.scale(weights)),
            self.constant(
                f"{layer}.weight_zero",
                integers(torch.zeros(len(weights.weight_scale), dtype=torch.int8), dtype, f"{layer}.weight_zero"),
            ),
        ]
        shape = list(weights.weight_q.shape)
        return self.node(product.node, "DequantizeLinear", inputs, f"{layer}.weight_dequantize", shape, {"axis": 0})

    def _quantize(self, before: Any, x: Any, site: str) -> Any:
        """The tensor after Q/DQ; equal ones are quantized once."""
        numbers = self.numbers[site]
        if (x, numbers.key) not in self.quantized:
            q = self._q(before, self._apart(before, x, site, numbers), site, numbers)
            self.quantized[x, numbers.key] = self._dq(before, q, site, x.shape)
        return self.quantized[x, numbers.key]

    def _apart(self, before: Any, x: Any, site: str, numbers: Numbers) -> Any:
        """The tensor times one, where the compiler would otherwise quantize it wrongly; else as it is. See ``clips``."""

        def ends_of(value: Any) -> Any:
            found = self.results.get(value)
            return found.ends if found is not None and found.bits == numbers.bits else None

        shape = [int(size) for size in x.shape]
        clipped = any(clips(ends, numbers.ends) for ends in quantized_before(x, ends_of))
        if not clipped and not has_wrong_rows(shape, numbers.bits):
            return x
        ones = ones_for(shape)
        by = self.constant(f"ones.{'x'.join(map(str, ones.shape))}", ones)
        return self.node(before, "Mul", [x, by], f"{site}.apart", x.shape)

    def _q(self, beside: Any, x: Any, site: str, numbers: Numbers, after: bool = False) -> Any:
        zero = torch.from_numpy(numbers.zero_point[:1].numpy().astype(INTEGERS[numbers.dtype])).squeeze(0)
        inputs = [x, self.constant(scale_name(site), numbers.scale[0]), self.constant(zero_name(site), zero)]
        dtype = self.ir.DataType[numbers.dtype]
        return self.node(beside, "QuantizeLinear", inputs, f"{site}.quantize", x.shape, dtype=dtype, after=after)

    def _dq(self, beside: Any, q: Any, site: str, shape: Any, after: bool = False) -> Any:
        inputs = [q, *(self.graph.initializers[name(site)] for name in (scale_name, zero_name))]
        return self.node(beside, "DequantizeLinear", inputs, f"{site}.dequantize", shape, after=after)


def _adds(add: Any, out: Any, bias: Tensor) -> bool:
    """Whether an addition is that of this bias, and of nothing else."""
    other = tensor_of(add.inputs[1] if add.inputs[0] is out else add.inputs[0])
    return other is not None and torch.equal(other.reshape(-1), bias)


def integers(values: Tensor, dtype: str, name: str) -> Any:
    """An onnx_ir tensor of int8 values, two in a byte where ``dtype`` is INT4."""
    ir, array = onnx_ir(), np.ascontiguousarray(values.numpy())
    kind = ir.DataType[dtype]
    return ir.tensor(array.astype(kind.numpy()), dtype=kind, name=name)


def set_step_group(model: Any, artifact: Artifact, group: int) -> None:
    """Give every quantize and dequantize the scales and zero_points of a step group, in place."""
    for site, numbers in numbers_of(artifact).items():
        scale, zero = (model.graph.initializers.get(name(site)) for name in (scale_name, zero_name))
        if scale is not None:  # sites that are the same tensor with the same numbers are quantized once
            scale.const_value = onnx_ir().tensor(numbers.scale[group].numpy(), name=scale.name)
            value = numbers.zero_point[group].numpy().astype(INTEGERS[numbers.dtype])
            zero.const_value = onnx_ir().tensor(value, name=zero.name)
