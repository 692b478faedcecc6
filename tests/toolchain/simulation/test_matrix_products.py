"""Matrix products of integers, which GPUs take, are the reference simulation, bit for bit: ``torch._int_mm`` is on CPUs too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.quant.qparams import activation_type
from dq_toolchain.toolchain.simulation import integer_products, matrix_products
from dq_toolchain.toolchain.simulation.integer_products import available, geometry_of
from dq_toolchain.toolchain.simulation.matrix_products import LEAST_ROWS, MULTIPLE, MatrixProduct, marked
from dq_toolchain.toolchain.simulation.network import ActivationTable, SimulatedLayer, StepGroupSwitch
from tests.toolchain.simulation.test_integer_products import LAYERS, simulated

MORE = {
    "text": (nn.Linear(24, 40), (2, 77, 24)),
    "one row": (nn.Linear(24, 40), (1, 24)),
    "row of pixels": (nn.Conv1d(6, 10, 3, padding=1), (2, 6, 12)),
    "not square": (nn.Conv2d(4, 5, (3, 1), stride=(2, 1), padding=(1, 0)), (3, 4, 9, 7)),
}
WHOLE = {name: case for name, case in (LAYERS | MORE).items() if getattr(case[0], "groups", 1) == 1}


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """What ``torch._int_mm`` refuses on a GPU is refused, and the shapes that it was given."""
    multiply = torch._int_mm
    shapes: list[tuple[int, ...]] = []

    def strict(rows: Tensor, columns: Tensor) -> Tensor:
        (m, k), (_, n) = rows.shape, columns.shape
        assert m > 16
        assert k % 8 == 0
        assert n % 8 == 0
        assert rows.is_contiguous()
        assert columns.t().is_contiguous()  # the layout that GPUs multiply fast
        shapes.append((m, k, n))
        return multiply(rows, columns)

    monkeypatch.setattr(torch, "_int_mm", strict)
    return shapes


def _case(name: str, bits: int = 8) -> tuple[SimulatedLayer, MatrixProduct, Tensor]:
    layer, shape = WHOLE[name]
    generator = torch.Generator().manual_seed(0)
    weight_q = torch.randint(-128, 128, layer.weight.shape, generator=generator, dtype=torch.int8)  # type: ignore[arg-type]
    product = MatrixProduct(geometry_of(layer) or (), weight_q)  # type: ignore[arg-type]
    return simulated(layer, weight_q, bits), product, torch.randn(shape, generator=generator) * 3


@pytest.mark.parametrize("bits", [6, 8])
@pytest.mark.parametrize("name", WHOLE)
def test_a_layer_gives_the_bits_of_the_float_simulation(
    name: str, bits: int, monkeypatch: pytest.MonkeyPatch, as_on_a_gpu: list[tuple[int, ...]]
) -> None:
    monkeypatch.setattr(integer_products, "available", lambda _device: False)
    plain, product, x = _case(name, bits)
    for group in (0, 1):
        plain.table.switch.current = group
        q, zero_point, scale = plain.table.unsigned(x)
        found = product(q, zero_point, scale * plain.weight_scale.flatten(), plain.bias)
        assert torch.equal(found, plain(x))
    assert as_on_a_gpu


def test_patches_of_many_samples_are_laid_out_in_parts(
    monkeypatch: pytest.MonkeyPatch, as_on_a_gpu: list[tuple[int, ...]]
) -> None:
    plain, product, x = _case("conv")
    q, zero_point, scale = plain.table.unsigned(x)
    monkeypatch.setattr(matrix_products, "PATCHES", 1)
    found = product(q, zero_point, scale * plain.weight_scale.flatten(), plain.bias)
    assert torch.equal(found, plain(x))
    assert len(as_on_a_gpu) == len(x)


def test_both_layouts_give_channels_last_and_the_same_bits() -> None:
    plain, product, x = _case("conv")
    q, zero_point, scale = plain.table.unsigned(x)
    weight_scale = scale * plain.weight_scale.flatten()
    for given in (q, q.to(memory_format=torch.channels_last)):
        found = product(given, zero_point, weight_scale, plain.bias)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found, plain(x))


def test_few_rows_and_odd_sizes_are_filled_up(as_on_a_gpu: list[tuple[int, ...]]) -> None:
    layer = nn.Linear(5, 3, bias=False)
    weight_q = torch.tensor([[1, 2, 3, 4, 5], [-128] * 5, [127] * 5], dtype=torch.int8)
    q = torch.full((1, 5), 255, dtype=torch.uint8)
    found = MatrixProduct(geometry_of(layer) or (), weight_q)(q, 3, torch.ones(3), None)
    assert found.tolist() == [[252.0 * 15, 252.0 * -640, 252.0 * 635]]
    assert as_on_a_gpu == [(LEAST_ROWS, MULTIPLE, MULTIPLE)]


def test_sums_beyond_float32_are_exact_and_those_beyond_int32_are_refused() -> None:
    weight_q = torch.full((2, 4096), 127, dtype=torch.int8)
    weight_q[1, 1::2] = -128
    q = torch.full((1, 4096), 255, dtype=torch.uint8)
    exact = 255 * weight_q.to(torch.int64).sum(1)
    assert exact[0] > 2**24
    assert torch.equal(MatrixProduct((), weight_q)(q, 0, torch.ones(2), None)[0], exact.to(torch.float32))
    with pytest.raises(RuntimeError, match="int32"):
        MatrixProduct((), torch.ones(1, 2**17, dtype=torch.int8))


def test_channel_groups_are_left_to_float() -> None:
    layer = nn.Conv2d(8, 8, 3, groups=2)
    with pytest.raises(RuntimeError, match="groups"):
        MatrixProduct(geometry_of(layer) or (), torch.ones(8, 4, 3, 3, dtype=torch.int8))


def test_a_sample_that_is_not_a_number_stays_so_and_others_stay_numbers() -> None:
    x = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    x[1, 2, 0, 1] = float("nan")
    x[2, 0, 0, 0] = float("inf")  # clamped, as in float
    product = MatrixProduct(((1, 1), (0, 0), (1, 1), 1), torch.ones(6, 4, 1, 1, dtype=torch.int8))
    scale = marked(torch.tensor(0.5), x) * torch.ones(6)
    y = product(torch.full(x.shape, 130, dtype=torch.uint8), 128, scale, None)
    assert y[1].isnan().all()
    assert torch.equal(y[[0, 2]], torch.full((2, 6, 2, 2), 4.0))


def test_a_probe_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = available.__wrapped__  # past what is remembered
    monkeypatch.setattr(integer_products, "IntegerProduct", MatrixProduct)
    assert probe("cpu")
    multiply = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: multiply(a, b).clamp(-(2**15), 2**15 - 1))
    assert not probe("cpu")


def test_no_host_read() -> None:
    """A GPU is asked nothing: it works on shapes alone, without numbers."""
    table = ActivationTable("x:input", torch.tensor([0.02]), torch.tensor([-3]), activation_type(8), StepGroupSwitch())
    product = MatrixProduct(((1, 1), (1, 1), (1, 1), 1), torch.ones(6, 4, 3, 3, dtype=torch.int8))
    for tensors in (table, product):
        for name, value in list(vars(tensors).items()):
            if isinstance(value, Tensor):
                setattr(tensors, name, value.to("meta"))
    x = torch.empty(2, 4, 5, 5, device="meta")
    q, zero_point, scale = table.to("meta").unsigned(x)
    assert scale.shape == (2, 1)
    assert product(q, zero_point, scale * torch.ones(6, device="meta"), None).shape == (2, 6, 5, 5)
