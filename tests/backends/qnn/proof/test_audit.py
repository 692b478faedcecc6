"""The audit accepts what the artifact says and nothing else: each planted fault is found by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from dq_toolchain.backends.qnn.proof.audit import audit
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.qnn.conftest import Lowered, load_graph, made

LAYER, LINEAR, ATTENTION = "down_blocks.0.resnets.0.conv1", "mid_block.attentions.0.to_out.0", "mid_block.attentions.0"
Plant = Callable[[Any], None]


def _change(name: str, change: Callable[[Any], Any]) -> Plant:
    def plant(graph: Any) -> None:
        value = graph.initializers[name]
        array = value.const_value.numpy().copy()
        value.const_value = ir.tensor(change(array).astype(array.dtype), dtype=value.const_value.dtype, name=name)

    return plant


def _add(amount: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array.reshape(-1)[0] += np.array(amount, array.dtype)
        return array

    return change


def _node(graph: Any, name: str) -> Any:
    return next(node for node in graph if node.name == name)


def _bias(layer: str) -> Plant:
    def plant(graph: Any) -> None:
        _change(_node(graph, layer).inputs[2].name, _add(1e-6))(graph)

    return plant


def _axis(graph: Any) -> None:
    """Scales of a square weight along its input channels."""
    dequantize = _node(graph, LINEAR).inputs[1].producer()
    dequantize.attributes["axis"] = ir.Attr("axis", ir.AttributeType.INT, 1)


def _float_input(graph: Any) -> None:
    node = _node(graph, LAYER)
    node.replace_input_with(0, node.inputs[0].producer().inputs[0].producer().inputs[0])


def _float_result(name: str) -> Plant:
    def plant(graph: Any) -> None:
        out = _node(graph, name).outputs[0]
        ((quantize, _),) = out.uses()
        ((dequantize, _),) = quantize.outputs[0].uses()
        for user, index in list(dequantize.outputs[0].uses()):
            user.replace_input_with(index, out)
        graph.remove([dequantize, quantize], safe=True)

    return plant


def _swap(graph: Any) -> None:
    """Two layers exchange the scales of their results."""
    quantizers = [_node(graph, f"{name}:output.quantize") for name in (LAYER, LINEAR)]
    scales = [quantizer.inputs[1] for quantizer in quantizers]
    for quantizer, scale in zip(quantizers, reversed(scales), strict=True):
        quantizer.replace_input_with(1, scale)


def _one_side(graph: Any) -> None:
    """Dequantize with another scale than quantize."""
    dequantize = _node(graph, f"{LAYER}:input.dequantize")
    other = ir.tensor(dequantize.inputs[1].const_value.numpy() * np.float32(2), name="other")
    graph.register_initializer(
        ir.Value(name="other", const_value=other, shape=ir.Shape([]), type=dequantize.inputs[1].type)
    )
    dequantize.replace_input_with(1, graph.initializers["other"])


PLANTED: dict[str, tuple[Plant, str]] = {
    "integer": (_change(f"{LAYER}.weight_q", _add(1)), f"the integers of {LAYER} differ"),
    "integer of a linear layer": (_change(f"{LINEAR}.weight_q", _add(1)), f"the integers of {LINEAR} differ"),
    "weight scale": (_change(f"{LAYER}.weight_scale", lambda a: a * 1.001), f"the weight scales of {LAYER} differ"),
    "weight zero_point": (_change(f"{LAYER}.weight_zero", _add(1)), f"the weights of {LAYER} have a zero_point"),
    "axis of weight scales": (_axis, f"the weight scales of {LINEAR} run along axis 1, expected 0"),
    "scale": (_change(f"{LAYER}:input.scale", lambda a: a * 1.001), f"quantize of {LAYER}:input has scale"),
    "scale of one side": (_one_side, f"dequantize of {LAYER}:input has scale"),
    "zero_point": (_change(f"{LAYER}:input.zero_point", _add(1)), f"quantize of {LAYER}:input .*zero_point 32769"),
    "range of a result, scale": (
        _change(f"{LAYER}:output.scale", lambda a: a * 1.001),
        f"quantize of {LAYER}:output has scale",
    ),
    "range of a result, zero_point": (
        _change(f"{LINEAR}:output.zero_point", _add(1)),
        f"quantize of {LINEAR}:output has scale",
    ),
    "second operand": (_change(f"{ATTENTION}:k.zero_point", _add(1)), f"quantize of {ATTENTION}:k .*zero_point 129"),
    "scores": (_change(f"{ATTENTION}:scores.scale", lambda a: a / 2), f"quantize of {ATTENTION}:scores has scale"),
    "bias of a convolution": (_bias(LAYER), f"the bias of {LAYER} differs"),
    "bias of a linear layer": (_bias(LINEAR), f"the bias of {LINEAR} differs"),
    "no Q in front": (_float_input, f"{LAYER}:input is not quantized"),
    "no Q behind": (_float_result(LAYER), f"{LAYER}:output is not quantized"),
    "no Q behind attention": (_float_result(f"{ATTENTION}:q"), f"{ATTENTION}:scores is not quantized"),
    "exchanged results": (_swap, "quantize of .*:output has scale"),
}


def test_saved_graphs_hold_the_artifact(form: Lowered) -> None:
    for group, path in enumerate(form.graphs):
        audit(load_graph(path), form.artifact, group)
        if form.bundle.form == "a16":
            audit(load_graph(path.with_name(f"{path.stem}.npu.onnx")), form.artifact, group, npu=True)


def test_graphs_for_the_cpu_and_for_the_npu_are_not_mistaken_for_each_other(wide: Lowered) -> None:
    plain, npu = wide.graphs[0], wide.graphs[0].with_name("steps_g0.npu.onnx")
    for path, as_npu in ((plain, True), (npu, False)):
        with pytest.raises(BackendError, match=r"the bias of \S+ differs"):
            audit(load_graph(path), wide.artifact, 0, as_npu)
    with pytest.raises(BackendError, match=r"the bias of \S+ differs"):
        audit(load_graph(npu), wide.artifact, 1, npu=True)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_changes_are_found(name: str, wide: Lowered) -> None:
    plant, text = PLANTED[name]
    graph = load_graph(wide.graphs[0])
    plant(graph)
    with pytest.raises(BackendError, match=text):
        audit(graph, wide.artifact, 0)


def test_one_integer_of_four_bits_is_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    narrow = made("a16-w4", tmp_path_factory)
    graph = load_graph(narrow.graphs[0])
    assert graph.initializers[f"{LAYER}.weight_q"].const_value.dtype.name == "INT4"
    change = _change(f"{LAYER}.weight_q", lambda array: -1 - array)
    change(graph)
    with pytest.raises(BackendError, match=f"the integers of {LAYER} differ"):
        audit(graph, narrow.artifact, 0)


def test_graph_of_another_step_group_is_refused(wide: Lowered) -> None:
    with pytest.raises(BackendError, match="has scale"):
        audit(load_graph(wide.graphs[1]), wide.artifact, 0)


def test_graph_without_a_layer_is_refused(wide: Lowered) -> None:
    graph = load_graph(wide.graphs[0])
    _node(graph, LAYER).name = "renamed"
    with pytest.raises(BackendError, match=rf"{LAYER}:input is not in the graph"):
        audit(graph, wide.artifact, 0)
