"""Channels last, as on a GPU: the same numbers but for the order of sums, and nothing that turns activations back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.network import channels_last, fake_quant
from dq_toolchain.calibrate.network.channels_last import LAST, norm_keeps_it, normalized, to_channels_last, to_host
from dq_toolchain.calibrate.network.insert import QuantizedNetwork, prepare
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.sites import float_operations
from dq_toolchain.toolchain.recipe.sections import QuantizeSection
from dq_toolchain.toolchain.simulation.matrix_products import Geometry, MatrixProduct
from tests.calibrate.conftest import measured
from tests.tiny import noise, tiny_condition_unet, tiny_unet

CPU = torch.device("cpu")


class TurnedBack(TorchDispatchMode):
    """Counts the operations that are given pictures with channels last and give them with channels first."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        views = {x.untyped_storage().data_ptr() for x in given}
        if any(_is_picture(x) and x.is_contiguous(memory_format=LAST) for x in given):
            made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
            copies = [x for x in made if x.untyped_storage().data_ptr() not in views]
            self.found[str(function)] += sum(_is_picture(x) and x.is_contiguous() for x in copies)
        return result


def _is_picture(x: Tensor) -> bool:
    """Of more than one channel and pixel: else both layouts are the same."""
    return x.dim() == 4 and x.shape[1] > 1 and x.shape[2] * x.shape[3] > 1 and not (x.shape[2] == x.shape[3] == 1)


@pytest.fixture
def own_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """GroupNorm as on CUDA: torch's own does not keep the layout, ours takes its place, on the CPU too."""
    monkeypatch.setattr(channels_last, "norm_keeps_it", lambda _device: False)

    def forward(self: channels_last.GroupNorm, x: Tensor) -> Tensor:
        if x.dim() != 4 or not x.is_contiguous(memory_format=LAST):
            return functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        return normalized(x, self.num_groups, self.weight, self.bias, self.eps)

    monkeypatch.setattr(channels_last.GroupNorm, "forward", forward)


def _call(network: nn.Module, classes: bool = True) -> Tensor:
    if not classes:
        return call_network(
            network, noise(2, channels=4), torch.full((2,), 500.0), {"encoder_hidden_states": torch.ones(2, 3, 8)}
        )
    return call_network(network, noise(2), torch.full((2,), 500.0), {"class_labels": torch.tensor([1, 2])})


def _behind_attention(turned: TurnedBack, network: nn.Module) -> bool:
    """Whether the only ones are those that diffusers asks for: one behind each transformer of a UNet."""
    transformers = sum(type(module).__name__ == "Transformer2DModel" for module in network.modules())
    return {name: count for name, count in turned.found.items() if count} in ({}, {"aten.clone.default": transformers})


@pytest.mark.usefixtures("own_norm")
@pytest.mark.parametrize("classes", [True, False], ids=["unet", "conditional"])
def test_a_network_gives_the_same_and_nothing_turns_back(classes: bool) -> None:
    network = tiny_unet() if classes else tiny_condition_unet()
    with torch.no_grad():
        before = _call(network, classes)
        to_channels_last(network, CPU)
        with TurnedBack() as turned:
            after = _call(network, classes)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert _behind_attention(turned, network), turned.found


@pytest.mark.usefixtures("own_norm")
@pytest.mark.parametrize("gradient", [True, False], ids=["fit", "validation"])
def test_a_quantized_network_does_not_turn_back_either(gradient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: layers lay out what they are given, and integer products are matrix products."""
    prepared = prepare(tiny_condition_unet(), QuantizeSection(), lambda network: _call(network, classes=False))
    to_channels_last(prepared.network, CPU)
    monkeypatch.setattr(fake_quant, "laid_out", lambda x: x.contiguous(memory_format=LAST) if x.dim() == 4 else x)
    products: list[MatrixProduct] = []

    def product(geometry: Geometry | None, weight_q: Tensor) -> MatrixProduct:
        products.append(MatrixProduct(geometry or (), weight_q))
        return products[-1]

    monkeypatch.setattr(fake_quant, "integer_product", product)
    shape = (1, len(prepared.sites))
    scales = {site.layer: torch.full((len(prepared.network.get_parameter(f"{site.layer}.weight")),), 2.0**-9)
              for site in prepared.sites}  # fmt: skip
    network = QuantizedNetwork(
        prepared, torch.full(shape, 2.0**-5), torch.zeros(shape, dtype=torch.int32), scales, (0,), learned_rounding=True
    )
    with network.weights_once() if gradient else network.frozen_weights(), torch.set_grad_enabled(gradient):
        with TurnedBack() as turned:
            y = _call(network, classes=False)
        if gradient:
            y.square().sum().backward()
    assert _behind_attention(turned, network), turned.found
    assert len(products) == (0 if gradient else len(prepared.sites))


def test_torchs_own_norm_stays_where_it_keeps_the_layout() -> None:
    assert norm_keeps_it("cpu")
    network = tiny_unet()
    to_channels_last(network, CPU)
    assert not any(isinstance(module, channels_last.GroupNorm) for module in network.modules())


@pytest.mark.parametrize("affine", [True, False])
def test_the_norm_and_its_gradients_are_torchs(affine: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(3, 8, 5, 6, generator=generator).to(memory_format=LAST) for _ in range(2))
    x = 2 * x + 3
    weight, bias = (torch.randn(8, generator=generator) if affine else None for _ in range(2))
    found = []
    for norm in (normalized, functional.group_norm):
        leaves = [leaf.clone().requires_grad_() for leaf in (x, weight, bias) if leaf is not None]
        y = norm(leaves[0], 4, leaves[1] if affine else None, leaves[2] if affine else None, 1e-5)
        found.append([y.detach(), *torch.autograd.grad(y, leaves, gradient)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert found[0][0].is_contiguous(memory_format=LAST)
    assert found[0][1].is_contiguous(memory_format=LAST)


def test_float_operations_call_the_norm_by_its_usual_name(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_unet()
    before = float_operations(network, False)
    monkeypatch.setattr(channels_last, "norm_keeps_it", lambda _device: False)
    to_channels_last(network, CPU)
    assert any(isinstance(module, channels_last.GroupNorm) for module in network.modules())
    assert float_operations(network, False) == before


def test_the_host_is_given_channels_first_and_torchs_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that was on a GPU computes on the CPU, bit for bit, as one that was not."""
    plain, moved = tiny_unet(), tiny_unet()
    monkeypatch.setattr(channels_last, "norm_keeps_it", lambda _device: False)
    to_channels_last(moved, CPU)
    assert not moved.conv_in.weight.is_contiguous() or moved.conv_in.weight.shape[1] == 1
    moved.to(memory_format=torch.contiguous_format)  # what ``to_host`` does to a network that is on a GPU
    with torch.no_grad():
        assert torch.equal(_call(moved), _call(plain))
    parameters = list(plain.parameters())
    to_host(plain)
    assert all(a is b and a.data_ptr() == b.data_ptr() for a, b in zip(parameters, plain.parameters(), strict=True))


@pytest.mark.usefixtures("own_norm")
def test_a_fit_gives_the_same_gradients_and_an_artifact_with_channels_first(tiny_model: Path, tmp_path: Path) -> None:
    case = measured(tiny_model, tmp_path)

    def gradients(network: QuantizedNetwork) -> list[Tensor]:
        network.set_step(0)
        with network.weights_once():
            _call(network).square().sum().backward()
        parameters = (network.scale_parameters() | network.weight_parameters()).values()
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    first = gradients(quantize_with(case.context, case.scale, case.zero_point, case.recipe))
    to_channels_last(case.context.network, CPU)
    network = quantize_with(case.context, case.scale, case.zero_point, case.recipe)
    last = gradients(network)
    weights = network.layers["mid_block.resnets.0.conv1"].weight_quantizer
    assert (
        weights.weight.data_ptr() == case.context.network.get_parameter("mid_block.resnets.0.conv1.weight").data_ptr()
    )
    assert weights.offset is not None
    assert weights.offset.is_contiguous(memory_format=LAST)
    whole = torch.cat([each.flatten() for each in first])
    assert float((torch.cat([each.flatten() for each in last]) - whole).norm()) < 1e-3 * float(whole.norm())
    artifact = finalize(network, case.context, {})
    assert all(layer.weight_q.is_contiguous() for layer in artifact.layers.values())
    assert all(value.is_contiguous() for value in artifact.float_parameters.values())
