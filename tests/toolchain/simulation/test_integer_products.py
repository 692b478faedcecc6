"""Integer products: the sums of float products, exactly, and the same simulation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dq_toolchain.toolchain.quant.qparams import activation_type
from dq_toolchain.toolchain.simulation import integer_products
from dq_toolchain.toolchain.simulation.integer_products import available, geometry_of, integer_product
from dq_toolchain.toolchain.simulation.network import ActivationTable, SimulatedLayer, StepGroupSwitch

LAYERS = {
    "linear": (nn.Linear(96, 20), (3, 7, 96)),
    "linear, no bias": (nn.Linear(5, 3, bias=False), (2, 5)),
    "conv": (nn.Conv2d(40, 24, 3, padding=1), (2, 40, 9, 7)),
    "strided": (nn.Conv2d(8, 12, 3, stride=2, padding=1), (2, 8, 10, 10)),
    "dilated": (nn.Conv2d(8, 12, 3, dilation=2, padding=2, bias=False), (1, 8, 8, 8)),
    "grouped": (nn.Conv2d(16, 16, 3, groups=4), (1, 16, 8, 8)),
    "depthwise": (nn.Conv2d(16, 16, 3, padding=1, groups=16), (2, 16, 8, 8)),
    "pointwise": (nn.Conv2d(3, 130, 1), (1, 3, 5, 5)),
}
needs_products = pytest.mark.skipif(not available(), reason="no exact integer products on this processor")


def simulated(layer: nn.Module, weight_q: torch.Tensor, bits: int) -> SimulatedLayer:
    table = ActivationTable(
        "x:input", torch.tensor([0.02, 0.05]), torch.tensor([-3, 1]), activation_type(bits), StepGroupSwitch()
    )
    scale = torch.rand(len(weight_q), generator=torch.Generator().manual_seed(1)) / 50
    return SimulatedLayer(layer, weight_q, scale, table, "integer")  # type: ignore[arg-type]


@needs_products
@pytest.mark.parametrize("bits", [6, 8])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_the_same_bits_with_and_without(name: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, shape = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    weight_q = torch.randint(-127, 128, layer.weight.shape, generator=generator, dtype=torch.int8)  # type: ignore[arg-type]
    x = torch.randn(shape, generator=generator) * 3
    fast = simulated(layer, weight_q, bits)
    monkeypatch.setattr(integer_products, "available", lambda _device: False)
    plain = simulated(layer, weight_q, bits)
    assert fast.product is not None
    assert plain.product is None
    for group in (0, 1):
        fast.table.switch.current = plain.table.switch.current = group
        fast.table.switch.record, plain.table.switch.record = {}, {}
        assert torch.equal(fast(x), plain(x))
        assert fast(x).stride() == plain(x).stride()  # else what follows sums in another order
        assert torch.equal(fast.table.switch.record["x:input"], plain.table.switch.record["x:input"])


@needs_products
def test_sums_too_large_for_float32_are_exact() -> None:
    layer = nn.Linear(4096, 2, bias=False)
    weight_q = torch.full((2, 4096), 127, dtype=torch.int8)
    weight_q[1, 1::2] = -128
    product = integer_product(geometry_of(layer), weight_q)
    assert product is not None
    q = torch.full((1, 4096), 255, dtype=torch.uint8)
    exact = 255 * weight_q.to(torch.int64).sum(1)
    assert exact[0] > 2**24
    assert torch.equal(product(q, 0, torch.ones(2), None)[0], exact.to(torch.float32))


def test_padding_by_name_is_left_to_float() -> None:
    layer = nn.Conv2d(4, 4, 3, padding="same")
    assert integer_product(geometry_of(layer), torch.ones(4, 4, 3, 3, dtype=torch.int8)) is None


def test_what_is_not_a_number_stays_so() -> None:
    layer = nn.Linear(4, 2)
    x = torch.tensor([[1.0, float("nan"), 0.0, 2.0]])
    weight_q = torch.ones(2, 4, dtype=torch.int8)
    assert simulated(layer, weight_q, 8)(x).isnan().all()
