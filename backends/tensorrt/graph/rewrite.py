"""Puts the artifact's integers and scales into a float graph: Q/DQ in front of every product, DQ behind int8 weights.

    static   x -> Q(scale) -> DQ(scale) -> product, with one graph per step group: they differ in scales only
    ratio    x / r -> Q(reference) -> DQ(reference) -> product without bias -> * r -> + bias, with r = scale / reference from
             the input ``ranges``, and one graph for all step groups

What was found is audited from the file later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dq_toolchain.backends.common.onnx.building import GraphBuilder, find_products
from dq_toolchain.backends.common.onnx.export import DTYPES
from dq_toolchain.backends.common.onnx.libraries import onnx_ir
from dq_toolchain.backends.common.onnx.reading import as_graph_has
from dq_toolchain.backends.common.ratios import reference_scales
from dq_toolchain.backends.tensorrt.proof.reading import as_held, factor_name
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights

OPSET = 19
"""Per-channel Q/DQ in fp16 is there, and JetPack 6's parser takes it."""
ZERO_POINT = "zero_point"


def scale_name(site: str) -> str:
    return f"{site}.scale"


class Rewriter(GraphBuilder):
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
        super().__init__(model, half=precision == "fp16")
        self.artifact, self.in_float, self.dtype = artifact, in_float, DTYPES[precision]
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
        for product in find_products(self.graph, self.artifact):
            product.node.name = product.name
            if product.kind == "layer":
                self._layer(product.node, product.layer, sites.get(f"{product.layer}:input"))
            elif product.kind == "attention":
                for place, operand in enumerate(product.operands):
                    x, _ = self._quantize(product.node, product.node.inputs[place], sites[f"{product.layer}:{operand}"])
                    product.node.replace_input_with(place, x)
        return self.finish()

    def _layer(self, node: Any, layer: str, site: int | None) -> None:
        """A layer without a site computes in float with its integers, which the graph unpacks."""
        weights, factors = as_held(self.artifact.layers[layer], self.dtype)
        node.replace_input_with(1, self._weight(node, layer, weights))
        x, ratio = (node.inputs[0], None) if site is None else self._quantize(node, node.inputs[0], site)
        node.replace_input_with(0, x)
        shape = (-1,) if node.op_type in ("Gemm", "MatMul") else (1, -1, *[1] * (weights.weight_q.dim() - 2))
        multipliers = [] if ratio is None else [(f"{layer}.multiply", ratio)]
        multipliers += [
            (name, self.constant(f"{name}.value", factor.to(self.dtype).reshape(shape)))
            for number, factor in enumerate(factors)
            for name in [factor_name(layer, number)]
        ]
        if multipliers:
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            if bias is not None:
                node.resize_inputs(2)
            self._after(node, layer, multipliers, bias, shape)

    def _weight(self, node: Any, layer: str, weights: LayerWeights) -> Any:
        """int8 (out, in, ...) behind a DQ of axis 0; of a MatMul (in, out) and axis 1. Transposed convolutions are in float."""
        if layer in self.in_float:
            return self.constant(
                f"{layer}.weight", as_graph_has(node, weights.dequantized()).to(self.dtype).contiguous()
            )
        turned, integers = node.op_type == "MatMul", as_graph_has(node, weights.weight_q).contiguous()
        inputs = [
            self.constant(f"{layer}.weight_q", integers),
            self.constant(f"{layer}.weight_scale", weights.weight_scale.to(self.dtype)),
        ]
        return self.node(
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
                x = self.node(before, "Div", [x, ratio], f"{name}.divide", x.shape)
            scale = self.constant(scale_name(name), self.scales[0, site].to(self.dtype))
            zero = self.constant(ZERO_POINT, torch.zeros((), dtype=torch.int8))
            q = self.node(
                before, "QuantizeLinear", [x, scale, zero], f"{name}.quantize", x.shape, dtype=self.ir.DataType.INT8
            )
            self.quantized[key] = (
                self.node(before, "DequantizeLinear", [q, scale, zero], f"{name}.dequantize", x.shape),
                ratio,
            )
        return self.quantized[key]

    def _ranges(self) -> Any:
        """The input ``ranges`` (1, L) in the type of the graph."""
        shape = self.ir.Shape([1, len(self.artifact.sites)])
        given = self.ir.Value(name="ranges", shape=shape, type=self.ir.TensorType(self.ir.DataType.FLOAT))
        self.graph.inputs.append(given)
        return self.node(self.first, "Cast", [given], "ranges.cast", shape, {"to": int(self.float)})

    def _ratio(self, site: int) -> Any:
        """The site's number of ``ranges``, (1, 1)."""
        if self.row is None:
            return None
        if site not in self.columns:
            index = self.constant(f"ranges.column{site}", torch.tensor([site]))
            self.columns[site] = self.node(
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
            last = self.node(last.producer(), "Mul", [last, operand], name, out.shape, after=True)
        if bias is not None:
            values = torch.from_numpy(bias.const_value.numpy().copy()).reshape(shape)
            last = self.node(
                last.producer(),
                "Add",
                [last, self.constant(f"{layer}.bias", values)],
                f"{layer}.add_bias",
                out.shape,
                after=True,
            )
        self.instead(out, users, last, f"{layer}.product")


def set_step_group(model: Any, artifact: Artifact, group: int) -> None:
    """Give every quantize and dequantize of a static graph the scales of a step group, in place."""
    for index, site in enumerate(artifact.sites):
        value = model.graph.initializers.get(scale_name(site.name))
        if value is not None:  # sites that are the same tensor with the same scales are quantized once
            scale = artifact.scale[group, index].numpy().astype(value.const_value.numpy().dtype)
            value.const_value = onnx_ir().tensor(scale, name=value.name)
