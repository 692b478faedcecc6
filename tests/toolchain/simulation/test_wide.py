"""Products of 16-bit activations are those of int64, in halves and in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS
from dq_toolchain.toolchain.quant.qparams import activation_type, fp16_exact
from dq_toolchain.toolchain.quant.sites import attention_layers
from dq_toolchain.toolchain.simulation.halves import EXACT, HALF, fits, sums_in_halves
from dq_toolchain.toolchain.simulation.network import (
    ActivationTable,
    SimulatedLayer,
    SimulatedNetwork,
    StepGroupSwitch,
    accumulator_dtype,
)
from tests.tiny_artifacts import tiny_artifact, with_wide_activations
from tests.toolchain.simulation.test_network import LAYERS, conv_sums

KIND = activation_type(16)
SCALE = fp16_exact(torch.tensor([0.0003]))
EVERY = torch.arange(KIND.qmin, KIND.qmax + 1, dtype=torch.float32)


def table() -> ActivationTable:
    return ActivationTable("site", SCALE, torch.tensor([0]), KIND, StepGroupSwitch())


def integers_of(x: Tensor) -> Tensor:
    """int64, written out anew."""
    return torch.round(x / SCALE).to(torch.int64).clamp(-(2**15), 2**15 - 1)


def input_of(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """Values over the whole range and beyond."""
    shape = (3, layer.in_features) if isinstance(layer, nn.Linear) else (3, layer.in_channels, 8, 7)
    return torch.randn(shape) * 8


def expected(layer: nn.Linear | nn.Conv2d, x: Tensor, weight_q: Tensor, weight_scale: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's result, and its sums in int64."""
    q = integers_of(x)
    sums = q @ weight_q.to(torch.int64).T if isinstance(layer, nn.Linear) else conv_sums(q, weight_q, layer)
    shape = (-1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
    y = sums.to(torch.float32) * (SCALE * weight_scale).view(shape)
    return y if layer.bias is None else y + layer.bias.view(shape), sums


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_sums_are_those_of_int64(name: str, halves: bool) -> None:
    torch.manual_seed(len(name))
    layer = LAYERS[name].requires_grad_(False)
    weight_q = torch.randint(-127, 128, layer.weight.shape).to(torch.int8)
    weight_scale = fp16_exact(torch.rand(len(weight_q)) * 1e-2)
    simulated = SimulatedLayer(layer, weight_q, weight_scale, table(), "integer")
    assert simulated.in_halves
    simulated.in_halves = halves
    x = input_of(layer)
    wanted, sums = expected(layer, x, weight_q, weight_scale)
    assert torch.equal(simulated(x), wanted)
    short = simulated.operation(integers_of(x).float(), weight_q.float(), None).to(torch.int64)
    assert (
        torch.equal(short, sums) == (sums.abs().max() < EXACT) == (name == "linear without bias")
    )  # or it would not show


def test_halves_are_exact_at_their_bound_and_float64_takes_over_behind_it() -> None:
    for inputs in (EXACT // (127 * 128), EXACT // (127 * 128) + 1):
        layer, weight_q = nn.Linear(inputs, 2, bias=False), torch.full((2, inputs), 127, dtype=torch.int8)
        weight_q[1, ::2] = -127
        simulated = SimulatedLayer(layer, weight_q, torch.ones(2), table(), "integer")
        assert simulated.in_halves == (inputs == EXACT // (127 * 128))
        for value in (-1e9, 1e9, -128 * float(SCALE), 127 * float(SCALE)):  # all saturate, or have one half
            x = torch.full((1, inputs), value)
            x[0, 1] = -3.0
            assert torch.equal(simulated(x), expected(layer, x, weight_q, torch.ones(2))[0])


def test_every_integer_is_the_sum_of_its_halves() -> None:
    seen: list[Tensor] = []

    def product(half: Tensor) -> Tensor:
        seen.append(half)
        return half

    assert torch.equal(sums_in_halves(product, EVERY), EVERY.double())
    assert max(float(half.abs().max()) for half in seen) == HALF / 2


def test_what_an_accumulator_must_hold() -> None:
    assert accumulator_dtype(2.0**24, "x", wide=True) == torch.float32
    assert accumulator_dtype(2.0**40, "x", wide=True) == torch.float64
    with pytest.raises(ArtifactError, match=r"conv_in.*float64"):
        accumulator_dtype(2.0**53, "conv_in", wide=True)
    assert fits(EXACT * HALF)
    assert not fits(EXACT * HALF + 1e4)


@torch.no_grad()
def test_attention_products_are_those_of_int64() -> None:
    """Operands of 16 and of 8 bits: both forms of the sum, by the number of products in it."""
    artifact = with_wide_activations(tiny_artifact(attention=True)[0])
    simulated = SimulatedNetwork(artifact)
    _, attention = next(iter(attention_layers(simulated.inner)))
    processor: Any = attention.processor
    torch.manual_seed(1)
    for which, (first, second) in PRODUCT_OPERANDS.items():
        tables: list[Any] = [attention.get_submodule(f"table_{operand}") for operand in (first, second)]
        assert [each.kind.bits for each in tables] == [16, 8]
        for length in (8, 1024, 1025):
            left, right = torch.randn(2, 5, length) * 100, torch.randn(2, length, 3) * 100
            a, b = (
                torch.round(x / t.scale[0]).to(torch.int64).clamp(t.kind.qmin, t.kind.qmax)
                for x, t in zip((left, right), tables, strict=True)
            )
            scale = tables[0].scale[0] * tables[1].scale[0]
            assert torch.equal(processor.product(attention, which, left, right), (a @ b).to(torch.float32) * scale)
