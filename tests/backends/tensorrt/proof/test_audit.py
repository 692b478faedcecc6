"""The audit accepts what the artifact says and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from dq_toolchain.backends.tensorrt.proof.audit import audit
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.tensorrt.conftest import Lowered, load_graph, made

LAYER = "down_blocks.0.resnets.0.conv1"


def _change(name: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    def plant(graph: Any) -> None:
        value = graph.initializers[name]
        value.const_value = ir.tensor(change(value.const_value.numpy().copy()), name=name)

    return plant


def _add(array: Any, amount: float) -> Any:
    array.reshape(-1)[0] += np.array(amount, array.dtype)
    return array


def _bias(graph: Any) -> None:
    node = next(node for node in graph if node.name == LAYER)
    _change(node.inputs[2].name, lambda array: _add(array, 1e-6))(graph)


def _unquantize(graph: Any) -> None:
    node = next(node for node in graph if node.name == LAYER)
    node.replace_input_with(0, node.inputs[0].producer().inputs[0].producer().inputs[0])


def _swap_sites(graph: Any) -> None:
    """Two layers exchange their quantizers."""
    nodes = [node for node in graph if node.name in (LAYER, "down_blocks.0.resnets.0.conv2")]
    quantizers = [node.inputs[0].producer().inputs[0].producer() for node in nodes]
    scales = [node.inputs[1] for node in quantizers]
    for quantizer, scale in zip(quantizers, reversed(scales), strict=True):
        quantizer.replace_input_with(1, scale)


PLANTED: dict[str, tuple[Callable[[Any], None], str]] = {
    "integer": (_change(f"{LAYER}.weight_q", lambda array: _add(array, 1)), f"the integers of {LAYER} differ"),
    "weight scale": (
        _change(f"{LAYER}.weight_scale", lambda array: array * np.float32(1.001)),
        f"the weight scales of {LAYER}",
    ),
    "scale": (
        _change(f"{LAYER}:input.scale", lambda array: array * np.float32(1.001)),
        f"quantize of {LAYER}:input has scale",
    ),
    "bias": (_bias, f"the bias of {LAYER} differs"),
    "float weight": (_change("conv_in.weight", lambda array: _add(array, 1e-6)), "the weights of conv_in differ"),
    "no quantizer": (_unquantize, f"{LAYER}:input is not quantized"),
    "exchanged scales": (_swap_sites, "quantize of .* has scale"),
}


def test_saved_graphs_hold_the_artifact(form: Lowered) -> None:
    ratio = form.bundle.form.startswith("ratio")
    for group, path in enumerate(form.graphs):
        audit(load_graph(path).graph, form.artifact, None if ratio else group)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_changes_are_found(name: str, static: Lowered) -> None:
    plant, text = PLANTED[name]
    graph = load_graph(static.graphs[0]).graph
    plant(graph)
    with pytest.raises(BackendError, match=text):
        audit(graph, static.artifact, 0)


def test_graph_of_another_step_group_is_refused(static: Lowered) -> None:
    with pytest.raises(BackendError, match="has scale"):
        audit(load_graph(static.graphs[1]).graph, static.artifact, 0)


def test_graph_without_a_layer_is_refused(static: Lowered) -> None:
    graph = load_graph(static.graphs[0]).graph
    next(node for node in graph if node.name == LAYER).name = "renamed"
    with pytest.raises(BackendError, match=rf"{LAYER}:input is not in the graph"):
        audit(graph, static.artifact, 0)


def test_ratio_of_another_site_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    form = made("ratio-fp32", tmp_path_factory)
    graph = load_graph(form.graphs[0]).graph
    divide = next(node for node in graph if node.name == f"{LAYER}:input.divide")
    other = next(node for node in graph if node.name == "conv_in:input.divide")
    divide.replace_input_with(1, other.inputs[1])
    with pytest.raises(BackendError, match=f"{LAYER}:input is divided by ratio 0 and multiplied by ratio"):
        audit(graph, form.artifact, None)
