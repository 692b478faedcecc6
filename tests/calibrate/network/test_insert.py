"""Quantizers in a UNet: sites by type, first and last layer by execution, gradients of shared weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dq_toolchain.calibrate.network.insert import QuantizedNetwork, prepare
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.recipe.sections import QuantizeSection
from tests.calibrate.conftest import tiny_recipe
from tests.tiny import noise, tiny_condition_unet, tiny_unet


def tiny_network(model: Path, out: Path) -> QuantizedNetwork:
    recipe = tiny_recipe(model, out, quantize={"weight_bits": 4, "step_groups": 2})
    context = setup(recipe)
    shape = (2, len(context.prepared.sites))
    return quantize_with(context, torch.full(shape, 2.0**-5), torch.zeros(shape, dtype=torch.int32), recipe)


def run_tiny(unet: nn.Module) -> object:
    return unet(noise(1), torch.tensor([10.0]), torch.tensor([1]))


def test_every_convolution_and_linear_is_a_site_and_the_edges_keep_their_bits() -> None:
    prepared = prepare(tiny_unet(), QuantizeSection(weight_bits=4), run_tiny)
    assert [site.layer for site in prepared.sites] == [name for name, _ in weighted_layers(prepared.network)]
    bits = {site.layer: site.weight_bits for site in prepared.sites}
    assert {name for name, value in bits.items() if value == 8} == {"conv_in", "conv_out"}
    assert set(bits.values()) == {4, 8}


def test_a_conditional_unet_gets_attention_operands_too() -> None:
    unet = tiny_condition_unet()
    prepared = prepare(
        unet,
        QuantizeSection(attention="int8"),
        lambda u: u(noise(1, channels=4), torch.tensor([10.0]), torch.zeros(1, 3, 8)),
    )
    names = [site.name for site in prepared.sites]
    assert len(names) == len(set(names))
    assert "mid_block.attentions.0.transformer_blocks.0.attn2:probs" in names
    assert any(name.endswith("ff.net.0.proj:input") for name in names)


def test_gradients_through_weights_quantized_once_equal_those_of_every_pass(tiny_model: Path, tmp_path: Path) -> None:
    network = tiny_network(tiny_model, tmp_path)
    x, label = noise(2), torch.tensor([1, 2])

    def passes() -> None:
        for k, time in ((0, 900.0), (3, 100.0)):
            network.set_step(k)
            network(x, torch.full((2,), time), class_labels=label, return_dict=False)[0].square().sum().backward()

    passes()
    expected = {name: p.grad.clone() for name, p in network.weight_parameters().items() if p.grad is not None}
    network.zero_grad()
    with network.weights_once():
        passes()
    biases = sum(layer.bias is not None for layer in network.layers.values())
    assert len(expected) == 2 * len(network.layers) + biases
    for name, parameter in network.weight_parameters().items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_frozen_weights_leave_only_ranges_to_fit(tiny_model: Path, tmp_path: Path) -> None:
    network = tiny_network(tiny_model, tmp_path)
    with network.frozen_weights():
        network(noise(1), torch.tensor([5.0]), class_labels=torch.tensor([0]), return_dict=False)[0].sum().backward()
    assert all(p.grad is None for p in network.weight_parameters().values())
    assert any(p.grad is not None and p.grad[0] != 0 for p in network.scale_parameters().values())


def test_only_the_step_group_in_force_gets_gradients(tiny_model: Path, tmp_path: Path) -> None:
    network = tiny_network(tiny_model, tmp_path)
    network.set_step(3)
    network(noise(1), torch.tensor([5.0]), class_labels=torch.tensor([0]), return_dict=False)[0].sum().backward()
    for parameter in network.scale_parameters().values():
        assert parameter.grad is not None
        assert parameter.grad[0] == 0
