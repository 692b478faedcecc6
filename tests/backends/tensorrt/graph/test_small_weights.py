"""Weights whose scales fp16 does not hold: powers of two behind the products, in the graphs and in nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from dq_toolchain.backends.tensorrt.proof.audit import audit
from dq_toolchain.backends.tensorrt.proof.reading import factor_name
from dq_toolchain.backends.tensorrt.runtime.conformance import compare
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests import tiny, tiny_artifacts
from tests.backends.tensorrt.conftest import Lowered, load_graph, lower

LAYERS = ("mid_block.attentions.0.to_out.0", "up_blocks.0.resnets.0.conv2")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    artifact, unet = tiny_artifacts.lively_artifact(
        unet=tiny.with_small_weights(tiny.tiny_unet()), step_groups=1, steps=2
    )
    return lower(tmp_path_factory.mktemp("small"), artifact, unet, jetpack=7)


def _factors(graph: Any, layer: str) -> list[Any]:
    return [
        value.const_value.numpy() for name, value in graph.initializers.items() if name.startswith(f"{layer}.factor")
    ]


def test_only_layers_of_small_weights_have_factors(small: Lowered) -> None:
    graph = load_graph(small.graphs[0]).graph
    assert len(_factors(graph, LAYERS[0])) == 1
    assert len(_factors(graph, LAYERS[1])) == 2
    assert _factors(graph, "mid_block.attentions.0.to_q") == []
    for factor in (*_factors(graph, LAYERS[0]), *_factors(graph, LAYERS[1])):
        assert (np.log2(factor.astype(np.float32)) % 1 == 0).all()
        assert factor.min() >= 2.0**-14


def test_every_operation_computes_what_the_simulation_computes(small: Lowered) -> None:
    found = compare(small.graph_of(0), small.artifact, SimulatedNetwork(small.artifact), 0, small.inputs(0))
    assert found.largest <= 1
    assert found.output_error < 2e-3


def _double(graph: Any) -> None:
    value = graph.initializers[f"{factor_name(LAYERS[0], 0)}.value"]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float16(2), name=value.name)


def _leave_out(graph: Any) -> None:
    node = next(node for node in graph if node.name == factor_name(LAYERS[1], 1))
    for user, index in list(node.outputs[0].uses()):
        user.replace_input_with(index, node.inputs[0])


@pytest.mark.parametrize(("plant", "layer"), [(_double, LAYERS[0]), (_leave_out, LAYERS[1])])
def test_a_factor_that_is_off_or_missing_is_found(plant: Callable[[Any], None], layer: str, small: Lowered) -> None:
    graph = load_graph(small.graphs[0]).graph
    audit(graph, small.artifact, 0)
    plant(graph)
    with pytest.raises(BackendError, match=f"{layer} differ"):
        audit(graph, small.artifact, 0)


def test_weights_that_are_another_power_of_two_are_found(small: Lowered) -> None:
    layer = small.artifact.layers[LAYERS[0]]
    other = replace(layer, weight_scale=layer.weight_scale * 2)
    artifact = replace(small.artifact, layers={**small.artifact.layers, LAYERS[0]: other})
    with pytest.raises(BackendError, match=f"the weight scales of {LAYERS[0]} differ"):
        audit(load_graph(small.graphs[0]).graph, artifact, 0)
