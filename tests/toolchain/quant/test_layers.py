"""Layers held output channel first compute what torch's own do; their integers are exact sums."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.quant.layers import (
    OutputFirst,
    channel_shape,
    fault_of,
    kind_of,
    operation_of,
    output_first,
    to_input_first,
    to_output_first,
)
from dq_toolchain.toolchain.quant.qparams import activation_type, quantize
from dq_toolchain.toolchain.quant.sites import float_operations, weighted_layers
from dq_toolchain.toolchain.simulation.integer_products import geometry_of, integer_product
from dq_toolchain.toolchain.simulation.network import ActivationTable, SimulatedLayer, StepGroupSwitch

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(8, 12, 3, stride=2, padding=2, dilation=2, groups=4), (3, 8, 17)),
    "transposed1d": (nn.ConvTranspose1d(8, 12, 4, stride=2, padding=1, output_padding=1), (3, 8, 9)),
    "transposed1d, groups": (nn.ConvTranspose1d(8, 12, 3, stride=3, dilation=2, groups=4, bias=False), (3, 8, 9)),
    "transposed2d": (nn.ConvTranspose2d(6, 10, (3, 4), stride=(2, 1), padding=(1, 0)), (2, 6, 5, 4)),
    "transposed2d, groups": (nn.ConvTranspose2d(6, 10, 3, stride=2, output_padding=1, groups=2), (2, 6, 5, 4)),
}


def _layer(name: str) -> tuple[Any, Tensor]:
    layer, shape = LAYERS[name]
    held = nn.Sequential(copy.deepcopy(layer).requires_grad_(False))
    output_first(held, {"0"})
    return held[0], torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", LAYERS)
def test_output_first_is_the_same_function(name: str) -> None:
    layer, x = _layer(name)
    own = LAYERS[name][0]
    torch.testing.assert_close(layer(x), own(x).detach(), rtol=0, atol=1e-6)
    assert len(layer.weight) == layer.out_channels == own.out_channels
    assert kind_of(layer) == kind_of(own)  # type: ignore[arg-type]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_weights_turn_and_turn_back(groups: int) -> None:
    weight = torch.randn(8, 12 // groups, 3)
    assert torch.equal(to_input_first(to_output_first(weight, groups), groups), weight)


@pytest.mark.parametrize("name", LAYERS)
def test_the_simulation_sums_integers_exactly(name: str) -> None:
    """Against the same integers in float64, where sums of integers have no error."""
    layer, x = _layer(name)
    generator = torch.Generator().manual_seed(2)
    weight_q = torch.randint(-127, 128, layer.weight.shape, generator=generator).to(torch.int8)
    weight_scale = torch.rand(layer.out_channels, generator=generator) / 64 + 0.01
    scale, zero_point, kind = torch.tensor([0.03]), torch.tensor([5]), activation_type(8)
    table = ActivationTable("site", scale, zero_point, kind, StepGroupSwitch())
    simulated = SimulatedLayer(layer, weight_q, weight_scale, table, "integer")
    sums = operation_of(layer)((quantize(x, scale, zero_point, kind) - 5).double(), weight_q.double(), None)
    shape = channel_shape(layer)
    expected = sums * (0.03 * weight_scale.double()).view(shape)
    if layer.bias is not None:
        expected = expected + layer.bias.double().view(shape)
    torch.testing.assert_close(simulated(x).double(), expected, rtol=1e-6, atol=1e-6)
    again = SimulatedLayer(layer, weight_q, weight_scale, table, "fake_quantize")(x)
    torch.testing.assert_close(again.double(), expected, rtol=1e-4, atol=1e-4)


def test_rows_have_integer_products_where_pictures_have_and_transposed_layers_never() -> None:
    rows, _ = _layer("conv1d")
    weight_q = torch.ones(rows.weight.shape, dtype=torch.int8)
    pictures = nn.Conv2d(8, 12, 3, groups=4)
    has_products = (
        integer_product(geometry_of(pictures), torch.ones(pictures.weight.shape, dtype=torch.int8)) is not None
    )
    assert (integer_product(geometry_of(rows), weight_q) is not None) == has_products
    layer, _ = _layer("transposed1d")
    assert geometry_of(layer) is None
    assert integer_product(None, weight_q) is None


def test_only_named_layers_are_held_output_first_and_all_are_found() -> None:
    network = nn.Sequential(
        nn.ConvTranspose1d(2, 2, 3), nn.ConvTranspose2d(2, 2, 3), nn.Conv1d(2, 2, 3), nn.Conv3d(2, 2, 3)
    )
    output_first(network, {"0", "2"})
    assert [type(layer) for _, layer in weighted_layers(network)] == [OutputFirst, nn.ConvTranspose2d, nn.Conv1d]
    with pytest.raises(ValueError, match="call output_first before"):
        operation_of(network[1])  # type: ignore[arg-type]


def test_layers_that_a_module_does_not_call_are_no_sites_and_it_is_listed() -> None:
    network = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
    assert [name for name, _ in weighted_layers(network)] == ["1"]
    assert [(op.layer, op.reason) for op in float_operations(network, False)] == [
        ("0", "module type is not supported by the quantizer")
    ]


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        (nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), "padding_mode 'circular'"),
        (torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "parametrization"),
        (nn.Conv1d(2, 2, 3), None),
    ],
)
def test_layers_without_an_integer_form_say_why(layer: nn.Module, fault: str | None) -> None:
    found = fault_of(layer)  # type: ignore[arg-type]
    assert found is None if fault is None else fault in str(found)


def test_a_size_asked_for_at_the_call_is_refused() -> None:
    layer, x = _layer("transposed1d")
    with pytest.raises(ValueError, match="set output_padding instead"):
        layer(x, [20])
