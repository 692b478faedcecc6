"""Puts the artifact's integers and scales into a float graph: Q/DQ in front of every product, DQ behind int8 weights.

    static   x -> Q(scale) -> DQ(scale) -> product, with one graph per step group: they differ in scales only
    ratio    x / r -> Q(reference) -> DQ(reference) -> product without bias -> * r -> + bias, with r = scale / reference from
             the input ``ranges``, and one graph for all step groups

Layers are found by the module scope that torch writes at every node; what was found is audited from the file later.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.common.ratios import reference_scales
from dq_toolchain.backends.tensorrt.graph.export import DTYPES, PREFIX
from dq_toolchain.backends.tensorrt.proof.reading import PRODUCTS, as_graph_has, as_held, factor_name
from dq_toolchain.backends.tensorrt.vendor import graph_passes, onnx_ir
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS

SCOPES = "pkg.torch.onnx.name_scopes"
ZERO_POINT = "zero_point"
OPERANDS = tuple(PRODUCT_OPERANDS.values())
"""Of the first and the second product of an attention block."""


def scale_name(site: str) -> str:
    return f"{site}.scale"


def layer_of(node: Any) -> str:
    """The module that a node was exported from."""
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    return str(scopes[-2]).removeprefix(PREFIX) if len(scopes) > 1 else ""


class Rewriter:
    """One pass over a float graph, which is changed in place.

    Args:
        precision: of the graph, "fp32" or "fp16".
        in_float: layers whose product stays in float, on the same numbers: their input passes Q/DQ, their weight is
            dequantized here.
        ratio: one graph for all step groups.
    """

    def __init__(
        self, model: Any, artifact: Artifact, precision: str, in_float: Mapping[str, str], ratio: bool
    ) -> None:
        self.ir, self.graph, self.artifact = onnx_ir(), model.graph, artifact
        self.model, self.in_float, self.ratio = model, in_float, ratio
        self.dtype, self.float = (
            DTYPES[precision],
            self.ir.DataType.FLOAT16 if precision == "fp16" else self.ir.DataType.FLOAT,
        )
        self.scales = reference_scales(artifact.scale).unsqueeze(0) if ratio else artifact.scale
        self.first = next(iter(self.graph))
        self.row = self._ranges() if ratio else None
        self.quantized: dict[Any, tuple[Any, Any]] = {}
        self.columns: dict[int, Any] = {}

    def run(self) -> Any:
        """The model, with nothing in it that is not used.

        Raises:
            BackendError: a layer or an attention product of the artifact is not in the graph, or is there twice.
        """
        sites = {site.name: index for index, site in enumerate(self.artifact.sites)}
        kept = self.artifact.float_layers
        products: Counter[str] = Counter()
        for node in list(self.graph):
            if node.op_type not in PRODUCTS:
                continue
            layer = layer_of(node)
            if layer in kept:
                products[layer] += 1
                node.name = layer
            elif layer in self.artifact.layers:
                products[layer] += 1
                self._layer(node, layer, sites[f"{layer}:input"])
            elif f"{layer}:q" in sites and node.op_type == "MatMul":
                pair = OPERANDS[min(products[layer], 1)]
                products[layer] += 1
                self._attention(node, f"{layer}:{pair[0]}", [sites[f"{layer}:{operand}"] for operand in pair])
        expected = dict.fromkeys((*self.artifact.layers, *kept), 1) | {
            site.layer: 2 for site in self.artifact.sites if site.kind == "attention"
        }
        wrong = [layer for layer, count in expected.items() if products[layer] != count]
        if wrong:
            raise BackendError(
                f"{wrong[0]} is {products[wrong[0]]} times in the exported graph, expected "
                f"{expected[wrong[0]]}; nothing was exported; report it with the model's config.json"
            )
        graph_passes().RemoveUnusedNodesPass()(self.model)
        for name in [name for name, value in self.graph.initializers.items() if not value.uses()]:
            del self.graph.initializers[name]
        for node in self.graph:
            node.metadata_props.clear()
            node.doc_string = None
        for value in self.graph.initializers.values():
            value.metadata_props.clear()
        self.model.metadata_props.clear()
        self.graph.metadata_props.clear()
        return self.model

    def _layer(self, node: Any, layer: str, site: int) -> None:
        node.name = layer
        weights, factors = as_held(self.artifact.layers[layer], self.dtype)
        node.replace_input_with(1, self._weight(node, layer, weights))
        x, ratio = self._quantize(node, node.inputs[0], site)
        node.replace_input_with(0, x)
        shape = (-1,) if node.op_type in ("Gemm", "MatMul") else (1, -1, *[1] * (weights.weight_q.dim() - 2))
        multipliers = [] if ratio is None else [(f"{layer}.multiply", ratio)]
        multipliers += [
            (name, self._constant(f"{name}.value", factor.to(self.dtype).reshape(shape)))
            for number, factor in enumerate(factors)
            for name in [factor_name(layer, number)]
        ]
        if multipliers:
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            if bias is not None:
                node.resize_inputs(2)
            self._after(node, layer, multipliers, bias, shape)

    def _attention(self, node: Any, name: str, sites: list[int]) -> None:
        node.name = name
        for place, site in enumerate(sites):
            node.replace_input_with(place, self._quantize(node, node.inputs[place], site)[0])

    def _weight(self, node: Any, layer: str, weights: LayerWeights) -> Any:
        """int8 (out, in, ...) behind a DQ of axis 0; of a MatMul (in, out) and axis 1. Transposed convolutions are in float."""
        if layer in self.in_float:
            return self._constant(
                f"{layer}.weight", as_graph_has(node, weights.dequantized()).to(self.dtype).contiguous()
            )
        turned, integers = node.op_type == "MatMul", as_graph_has(node, weights.weight_q).contiguous()
        inputs = [
            self._constant(f"{layer}.weight_q", integers),
            self._constant(f"{layer}.weight_scale", weights.weight_scale.to(self.dtype)),
        ]
        return self._node(
            node,
            "DequantizeLinear",
            inputs,
            f"{layer}.weight_dequantize",
            list(integers.shape),
            {"axis": 1 if turned else 0},
        )

    def _quantize(self, before: Any, x: Any, site: int) -> tuple[Any, Any]:
        """The tensor after Q/DQ, and the ratio its product is to be multiplied by; equal ones are quantized once."""
        key = (x, tuple(self.artifact.scale[:, site].tolist()))
        if key not in self.quantized:
            name, ratio = self.artifact.sites[site].name, self._ratio(site)
            if ratio is not None:
                x = self._node(before, "Div", [x, ratio], f"{name}.divide", x.shape)
            scale = self._constant(scale_name(name), self.scales[0, site].to(self.dtype))
            zero = self._constant(ZERO_POINT, torch.zeros((), dtype=torch.int8))
            q = self._node(
                before, "QuantizeLinear", [x, scale, zero], f"{name}.quantize", x.shape, dtype=self.ir.DataType.INT8
            )
            self.quantized[key] = (
                self._node(before, "DequantizeLinear", [q, scale, zero], f"{name}.dequantize", x.shape),
                ratio,
            )
        return self.quantized[key]

    def _ranges(self) -> Any:
        """The input ``ranges`` (1, L) in the type of the graph."""
        shape = self.ir.Shape([1, len(self.artifact.sites)])
        given = self.ir.Value(name="ranges", shape=shape, type=self.ir.TensorType(self.ir.DataType.FLOAT))
        self.graph.inputs.append(given)
        return self._node(self.first, "Cast", [given], "ranges.cast", shape, {"to": int(self.float)})

    def _ratio(self, site: int) -> Any:
        """The site's number of ``ranges``, (1, 1)."""
        if self.row is None:
            return None
        if site not in self.columns:
            index = self._constant(f"ranges.column{site}", torch.tensor([site]))
            self.columns[site] = self._node(
                self.first, "Gather", [self.row, index], f"{self.artifact.sites[site].name}.ratio", [1, 1], {"axis": 1}
            )
        return self.columns[site]

    def _after(
        self, node: Any, layer: str, multipliers: list[tuple[str, Any]], bias: Any, shape: tuple[int, ...]
    ) -> None:
        """Put products, by name and other operand, and ``+ bias`` in its channels' shape behind a product."""
        out = last = node.outputs[0]
        users = list(out.uses())
        for name, operand in multipliers:
            last = self._node(last.producer(), "Mul", [last, operand], name, out.shape, after=True)
        if bias is not None:
            values = torch.from_numpy(bias.const_value.numpy().copy()).reshape(shape)
            last = self._node(
                last.producer(),
                "Add",
                [last, self._constant(f"{layer}.bias", values)],
                f"{layer}.add_bias",
                out.shape,
                after=True,
            )
        for user, index in users:
            user.replace_input_with(index, last)
        for index, value in enumerate(self.graph.outputs):
            if value is out:
                out.name, last.name = f"{layer}.product", out.name
                self.graph.outputs[index] = last

    def _constant(self, name: str, tensor: Tensor) -> Any:
        if name not in self.graph.initializers:
            self.graph.register_initializer(constant(name, tensor))
        return self.graph.initializers[name]

    def _node(
        self,
        beside: Any,
        op_type: str,
        inputs: list[Any],
        name: str,
        shape: Any,
        attributes: Mapping[str, int] | None = None,
        dtype: Any = None,
        after: bool = False,
    ) -> Any:
        """The output of a new node in front of another one, or behind it."""
        ir = self.ir
        node = ir.Node(
            "", op_type, inputs, [ir.Attr(k, ir.AttributeType.INT, v) for k, v in (attributes or {}).items()], name=name
        )
        out = node.outputs[0]
        out.name, out.shape, out.type = name, ir.Shape(shape), ir.TensorType(dtype or self.float)
        (self.graph.insert_after if after else self.graph.insert_before)(beside, [node])
        return out


def constant(name: str, tensor: Tensor) -> Any:
    """An initializer."""
    ir, array = onnx_ir(), np.ascontiguousarray(tensor.numpy())
    value = ir.tensor(array.reshape(tuple(tensor.shape)), name=name)
    return ir.Value(name=name, const_value=value, shape=ir.Shape(value.shape), type=ir.TensorType(value.dtype))


def set_step_group(model: Any, artifact: Artifact, group: int) -> None:
    """Give every quantize and dequantize of a static graph the scales of a step group, in place."""
    for index, site in enumerate(artifact.sites):
        value = model.graph.initializers.get(scale_name(site.name))
        if value is not None:  # sites that are the same tensor with the same scales are quantized once
            scale = artifact.scale[group, index].numpy().astype(value.const_value.numpy().dtype)
            value.const_value = onnx_ir().tensor(scale, name=value.name)
