"""Biases for the NPU: they give back, in the mean, what it drops of 16-bit sums.

Of a sum the eight low bits are dropped, rounded down: 127.5 units of input times weight too little in the mean. A bias is kept in
multiples of 256 units. So a graph for the NPU has the multiple that is nearest to the calibrated bias and 127.5 units more. On a
CPU, which drops nothing, it would be wrong by as much: the graph with the calibrated biases stays beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.onnx.building import constant
from dq_toolchain.backends.common.onnx.reading import products
from dq_toolchain.backends.qnn.graph.numbers import numbers_of
from dq_toolchain.backends.qnn.graph.weights import weight_forms
from dq_toolchain.toolchain.formats.artifact import Artifact

GRAPH, NPU = ".onnx", ".npu.onnx"
"""Ends the names of a graph with the calibrated biases, and of that for the NPU."""
DROPPED = 256
"""Units of input times weight, of which one is kept."""
LOST = (DROPPED - 1) / 2
"""Of them, in the mean."""
GUARD = 16
"""Units beyond a multiple, away from zero: a bias is rounded towards zero, after a division in float32."""


def method_of(graph: Path) -> str:
    """The name of a step group's graph, of either kind."""
    return graph.name.removesuffix(GRAPH).removesuffix(NPU.removesuffix(GRAPH))


def graph_to_compile(folder: Path, method: str) -> Path:
    """The graph for the NPU, or the only one where there is one for both."""
    npu = folder / f"{method}{NPU}"
    return npu if npu.is_file() else folder / f"{method}{GRAPH}"


def bias_integers(bias: Tensor, unit: Tensor) -> Tensor:
    """A float bias as the compiler holds it, float64 integers. ``unit``: scale of input times scale of weight, per channel."""
    return torch.round(bias.to(torch.float64) / unit)


def npu_biases(artifact: Artifact, group: int) -> dict[str, Tensor]:
    """Of every integer layer that has a bias, by name: (out,) float32 for one step group."""
    numbers, forms = numbers_of(artifact), weight_forms(artifact)
    found = {}
    for layer, weights in artifact.layers.items():
        bias = artifact.float_parameters.get(f"{layer}.bias")
        if bias is not None:
            scale = numbers[f"{layer}:input"].scale[group].to(torch.float64)
            unit = scale * forms[layer].scale(weights).to(torch.float64)
            kept = torch.round((bias_integers(bias, unit) + LOST) / DROPPED) * DROPPED
            found[layer] = ((kept + GUARD * kept.sign()) * unit).to(torch.float32)
    return found


def set_npu_biases(model: Any, artifact: Artifact, group: int) -> None:
    """Give the products of a model, in place, the biases for the NPU."""
    graph, biases = model.graph, npu_biases(artifact, group)
    for node in products(graph):
        if node.name not in biases or len(node.inputs) < 3 or node.inputs[2] is None:
            continue  # one of zeros is left out, and stays zeros
        value = constant(f"{node.name}.npu_bias", biases[node.name])
        graph.initializers.pop(value.name, None)
        graph.register_initializer(value)
        node.replace_input_with(2, value)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
