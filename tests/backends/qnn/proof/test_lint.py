"""The lint takes what the compiler takes, and refuses each form that it does not, by name and with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from dq_toolchain.backends.common.onnx.building import GraphBuilder
from dq_toolchain.backends.qnn.proof.lint import lint
from tests.backends.qnn.conftest import Lowered, load_graph
from tests.backends.qnn.proof.test_audit import (
    ATTENTION,
    LAYER,
    LINEAR,
    _axis,
    _change,
    _float_input,
    _float_result,
    _node,
    _one_side,
)

Plant = Callable[[Any], None]


def _retyped(site: str, dtype: Any, zero: int, scale: float = 1.0) -> Plant:
    """A site's Q/DQ in another type."""

    def plant(graph: Any) -> None:
        value = graph.initializers[f"{site}.zero_point"]
        value.const_value = ir.tensor(np.array(zero, dtype), name=value.name)
        _change(f"{site}.scale", lambda array: array * scale)(graph)

    return plant


def _all16(graph: Any) -> None:
    """Q/DQ behind everything that is no product."""
    builder = GraphBuilder(ir.Model(graph, ir_version=10))
    scale, zero = (graph.initializers[f"{LAYER}:output.{name}"] for name in ("scale", "zero_point"))
    for node in [node for node in graph if node.op_type == "Tanh"]:
        out, users = node.outputs[0], list(node.outputs[0].uses())
        q = builder.node(node, "QuantizeLinear", [out, scale, zero], f"{node.name}.q", out.shape, after=True)
        dq = builder.node(q.producer(), "DequantizeLinear", [q, scale, zero], f"{node.name}.dq", out.shape, after=True)
        builder.instead(out, users, dq, f"{node.name}.float")


def _sinusoid(graph: Any) -> None:
    GraphBuilder(ir.Model(graph, ir_version=10)).node(
        next(iter(graph)), "Sin", [graph.inputs[0]], "the_sinusoid", graph.inputs[0].shape
    )


def _float_weights(graph: Any) -> None:
    node = _node(graph, LAYER)
    value = ir.Value(
        name="w",
        const_value=ir.tensor(node.inputs[1].producer().inputs[0].const_value.numpy().astype(np.float32), name="w"),
        shape=node.inputs[1].shape,
    )
    graph.register_initializer(value)
    node.replace_input_with(1, value)


def _lost_clip(graph: Any) -> None:
    """A layer reads another one's quantized result, of a range that is wider than its own, with nothing computed between."""
    result = _node(graph, f"{LAYER}:output.dequantize").outputs[0]
    _node(graph, f"{LAYER.replace('conv1', 'conv2')}:input.quantize").replace_input_with(0, result)
    _change(f"{LAYER}:output.scale", lambda array: array * 1000)(graph)


def _sixteen_rows(graph: Any) -> None:
    """What is quantized has 16 rows and comes from no multiplication."""
    value = _node(graph, f"{LINEAR}:input.quantize").inputs[0]
    while value.producer().op_type == "Mul":
        _node(graph, f"{LINEAR}:input.quantize").replace_input_with(0, value := value.producer().inputs[0])
    value.shape = ir.Shape([16, 32])


def _einsum(graph: Any) -> None:
    x = graph.inputs[0]
    GraphBuilder(ir.Model(graph, ir_version=10)).node(next(iter(graph)), "Einsum", [x], "the_einsum", x.shape)


def _narrow_single(graph: Any) -> None:
    for name in ("weight_q", "weight_zero"):
        value = graph.initializers[f"conv_out.{name}"]
        integers = (value.const_value.numpy() % 8).astype(ir.DataType.INT4.numpy())
        value.const_value = ir.tensor(integers, dtype=ir.DataType.INT4, name=value.name)


PLANTED: dict[str, tuple[Plant, str, str]] = {
    "a clip that is lost": (_lost_clip, LAYER.replace("conv1", "conv2"), "clips would come through"),
    "16 rows": (_sixteen_rows, LINEAR, "16 rows in 16 bits, which come out wrong"),
    "einsum": (_einsum, "the_einsum", "Einsum is not among what the compiler takes"),
    "Q/DQ in front only": (_float_result(LAYER), LAYER, "result is not quantized: weights per channel go to the CPU"),
    "attention with a float result": (_float_result(f"{ATTENTION}:q"), f"{ATTENTION}:q", "computed in fp16"),
    "second operand with zero_point 120": (
        _retyped(f"{ATTENTION}:k", np.uint8, 120),
        f"{ATTENTION}:q",
        "second operand is 120, only 128",
    ),
    "second operand of 16 bits": (
        _retyped(f"{ATTENTION}:k", np.uint16, 32768),
        f"{ATTENTION}:q",
        "second operand is UINT16",
    ),
    "int16 in a product of two tensors": (
        _retyped(f"{ATTENTION}:q", np.int16, 0),
        f"{ATTENTION}:q",
        "first operand is INT16: int16 does not compile",
    ),
    "uint8 in, uint16 out": (_retyped(f"{LAYER}:input", np.uint8, 128, 256), LAYER, "it takes UINT8 and gives UINT16"),
    "everything in uint16": (_all16, "tanh", "integers between products: .*29 % wrong"),
    "float input": (_float_input, LAYER, "its input is not quantized"),
    "float weights": (_float_weights, LAYER, "its weights are float"),
    "weight zero_point": (
        _change(f"{LAYER}.weight_zero", lambda array: array + 1),
        LAYER,
        "weights have a zero_point other than 0",
    ),
    "axis of weight scales": (_axis, LINEAR, "weight scales run along axis 1, output channels are axis 0"),
    "two scales of one tensor": (_one_side, LAYER, "quantize and dequantize of its input differ"),
    "scale of zero": (_change(f"{LAYER}:output.scale", lambda array: array * 0), LAYER, "is 0, it must be positive"),
    "scale per channel": (
        _change(f"{LAYER}:output.scale", lambda array: np.full(16, array)),
        LAYER,
        "its result has 16 scales",
    ),
    "bias beyond int32": (
        _change(f"{LAYER}.weight_scale", lambda array: array * 1e-12),
        LAYER,
        "its bias is .* steps, in int32",
    ),
    "INT4 to one channel": (_narrow_single, "conv_out", "INT4 and it has one output channel"),
    "sinusoid": (_sinusoid, "the_sinusoid", "make them an input"),
}


def test_what_is_exported_is_taken(form: Lowered) -> None:
    for path in form.graphs:
        found = lint(load_graph(path))
        assert [each for each in found if not each.integer] == []
        firsts = [site for site in form.artifact.sites if site.operand in ("input", "q", "probs")]
        assert len(found) == len(firsts)


@pytest.mark.parametrize("name", PLANTED)
def test_what_the_compiler_does_not_take_is_refused(name: str, wide: Lowered) -> None:
    plant, site, text = PLANTED[name]
    graph = load_graph(wide.graphs[0])
    plant(graph)
    wrong = [each for each in lint(graph) if not each.integer]
    assert [each for each in wrong if site in each.name and re.search(text, each.why)], wrong
