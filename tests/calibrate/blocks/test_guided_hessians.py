"""Hessians of the network's output: what a small change of one layer's weights does there, and all rows alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks import guided_hessians
from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.blocks.guided_hessians import guided_hessians_of
from dq_toolchain.calibrate.blocks.second_order import blocks_of
from dq_toolchain.calibrate.work.seeds import hash_seed
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.layers import Layer
from dq_toolchain.toolchain.quant.sites import weighted_layers
from tests.calibrate.blocks.test_units import Tiny, tiny

CPU = torch.device("cpu")
EVERY = 10**6


def layers_of(case: Tiny) -> dict[str, Layer]:
    return dict(weighted_layers(case.fp32))


def summed(case: Tiny, layers: dict[str, Layer], part: list[str], rows: Evaluations) -> dict[str, list[Tensor]]:
    noise = {name: layer.weight.detach().square().mean() for name, layer in layers.items()}
    return guided_hessians_of(case.fp32, layers, part, noise, rows, CPU, 3)


def test_a_linear_layer_at_one_place_has_the_square_of_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the weight's gradient is g x': summed over channels its square is |g|^2 x x', up to the row's size."""
    monkeypatch.setattr(guided_hessians, "POSITIONS", EVERY)
    case = tiny(samples=1)
    layers, row = layers_of(case), case.rows.select(slice(0, 1))
    name = next(name for name, layer in layers.items() if isinstance(layer, nn.Linear) and "time_emb" in name)
    generator = torch.Generator().manual_seed(hash_seed(3, 0))
    weight = layers[name].weight.requires_grad_(True)
    out = call_network(case.fp32, row.sample, row.timestep, row.keywords)
    signs = (torch.randint(0, 2, out.shape, generator=generator) * 2 - 1).float()
    (gradient,) = torch.autograd.grad(out, weight, signs)
    weight.requires_grad_(False)
    (found,) = summed(case, layers, [name], row)[name]
    expected = (gradient.T @ gradient)[None]
    ratio = found.diagonal(dim1=1, dim2=2).sum() / expected.diagonal(dim1=1, dim2=2).sum()
    torch.testing.assert_close(found, expected * ratio, rtol=1e-3, atol=1e-5 * float(found.abs().max()))


def test_rows_count_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """What independent changes of all layers do to the output is the same for each row, whatever the row."""
    monkeypatch.setattr(guided_hessians, "POSITIONS", EVERY)
    case = tiny(samples=2)
    layers = layers_of(case)
    for row in (case.rows.select(slice(i, i + 1)) for i in range(len(case.rows))):
        found = summed(case, layers, [*layers], row)
        power = sum(
            float(layer.weight.square().mean() * block.diagonal(dim1=1, dim2=2).sum())
            for name, layer in layers.items()
            for block in found[name]
        )
        assert power == pytest.approx(1.0, rel=1e-3)


def test_layers_in_parts_have_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided_hessians, "POSITIONS", 7)
    case = tiny(samples=2)
    layers = layers_of(case)
    whole = summed(case, layers, [*layers], case.rows)
    assert whole.keys() == layers.keys()
    for name in layers:
        (part,) = summed(case, layers, [name], case.rows).values()
        assert all(torch.equal(a, b) for a, b in zip(part, whole[name], strict=True))
        assert len(part) == len(blocks_of(layers[name]))


def test_the_network_is_left_as_it_was() -> None:
    case = tiny(samples=1)
    layers = layers_of(case)
    summed(case, layers, [*layers], case.rows)
    assert all(not module._forward_hooks for module in case.fp32.modules())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in case.fp32.parameters())
