"""Closed-form rounding: patches give a layer's outputs, the order is OBQ's, and outputs change less than with nearest integers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks import second_order
from dq_toolchain.calibrate.blocks.second_order import blocks_of, input_patches, outputs_of, patches_at, rounded
from dq_toolchain.toolchain.quant.layers import Layer, channel_shape

LAYERS: dict[str, tuple[Callable[[], Layer], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(12, 6), (3, 5, 12)),
    "linear of vectors": (lambda: nn.Linear(12, 6), (3, 12)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), (3, 4, 6, 5)),
    "stride and dilation": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=(2, 1), dilation=(1, 2)),
        (3, 4, 8, 9),
    ),
    "padding by name": (lambda: nn.Conv2d(4, 6, (4, 3), padding="same"), (3, 4, 8, 9)),
    "no padding": (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (3, 4, 8, 9)),
    "channel groups": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (3, 4, 6, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), (3, 4, 6, 5)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1, stride=2), (3, 4, 11)),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", LAYERS)
def test_patches_times_weights_are_the_outputs(name: str) -> None:
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape)
    patches = input_patches(layer, x)
    groups = patches.shape[2]
    products = torch.einsum("bpgk,gok->bgop", patches, layer.weight.flatten(1).unflatten(0, (groups, -1)))
    assert layer.bias is not None
    expected = layer(x) - (layer.bias if isinstance(layer, nn.Linear) else layer.bias.view(channel_shape(layer)))
    expected = expected.reshape(3, -1, 6).transpose(1, 2) if isinstance(layer, nn.Linear) else expected.flatten(2)
    torch.testing.assert_close(products.flatten(1, 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_patches_of_some_outputs_are_theirs_among_all(name: str) -> None:
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape)
    patches = input_patches(layer, x)
    assert outputs_of(layer, x) == patches.shape[1]
    for count in (patches.shape[1], (patches.shape[1] + 1) // 2):
        chosen = torch.randperm(patches.shape[1])[:count]
        found = patches_at(layer, x, chosen)
        assert torch.equal(found, patches[:, chosen])
        assert found.stride() == patches[:, chosen].stride()  # so that their products are added up alike


def alike(shape: tuple[int, ...]) -> Tensor:
    """Inputs whose channels and neighbours have much in common, as those of networks."""
    return torch.randn(shape) + 3 * torch.randn(shape[0], *[1] * (len(shape) - 1))


def hessians(layer: Layer, x: Tensor) -> list[Tensor]:
    columns = input_patches(layer, x).flatten(0, 1).transpose(0, 1)
    return [columns[..., part].transpose(1, 2) @ columns[..., part] for part in blocks_of(layer)]


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_change_less_than_with_the_nearest_integers(name: str) -> None:
    make, shape = LAYERS[name]
    layer, x = make(), alike(shape)
    ratio = (layer.weight / layer.weight.abs().max()).detach() * 7
    found = rounded(ratio, hessians(layer, x), -7, 7)
    assert torch.equal(found, found.round())
    assert found.abs().max() <= 7
    nearest = ratio.round()
    errors = []
    for integers in (found, nearest):
        changed = integers - ratio
        groups = hessians(layer, x)[0].shape[0]
        by_group = changed.flatten(1).unflatten(0, (groups, -1))
        errors.append(float(torch.einsum("gok,gkl,gol->", by_group, hessians(layer, x)[0], by_group)))
    assert errors[0] < 0.8 * errors[1]


def test_uncorrelated_inputs_give_the_nearest_integers() -> None:
    ratio = torch.randn(5, 20) * 3
    hessian = torch.diag(torch.rand(20) + 0.1)[None]
    assert torch.equal(rounded(ratio, [hessian], -7, 7), ratio.round().clamp(-7, 7))


def test_inputs_that_are_always_zero_give_the_nearest_integers() -> None:
    ratio = torch.randn(5, 20) * 3
    assert torch.equal(rounded(ratio, [torch.zeros(1, 20, 20)], -7, 7), ratio.round().clamp(-7, 7))


def obq(ratio: Tensor, hessian: Tensor) -> Tensor:
    """One row after the other as OBQ states it: round a weight, spread its error, strike it out of the inverse Hessian."""
    h = hessian.double()
    h = h + second_order.DAMPING * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    order = hessian.diagonal().argsort(descending=True)
    made = torch.empty_like(ratio, dtype=torch.float64)
    for row, weight in enumerate(ratio.double()):
        left, inverse = weight.clone(), torch.linalg.inv(h)
        for column in order.tolist():
            integer = left[column].round().clamp(-7, 7)
            made[row, column] = integer
            error = (left[column] - integer) / inverse[column, column]
            left = left - error * inverse[:, column]
            inverse = inverse - torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
            inverse[column, column] = 1.0  # struck out; its weight is never read again
    return made.float()


def test_it_is_obq_in_a_fixed_order_before_the_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_order, "SWEEPS", 0)
    x = torch.randn(200, 24) @ torch.randn(24, 24)
    hessian, ratio = x.T @ x, torch.randn(6, 24) * 3
    expected = obq(ratio, hessian)
    assert not torch.equal(expected, ratio.round().clamp(-7, 7))
    for batch in (1, 7, 64):
        monkeypatch.setattr(second_order, "BATCH", batch)
        assert torch.equal(rounded(ratio, [hessian[None]], -7, 7), expected)


def test_after_the_descent_no_integer_alone_can_be_better(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(200, 24) @ torch.randn(24, 24)
    ratio = torch.randn(6, 24) * 3
    hessian = x.T @ x
    damped = hessian + second_order.DAMPING * hessian.diagonal().mean() * torch.eye(24)

    def errors(integers: Tensor) -> Tensor:
        return torch.einsum("ok,kl,ol->o", ratio - integers, damped, ratio - integers)

    made = {}
    for sweeps in (0, 20):
        monkeypatch.setattr(second_order, "SWEEPS", sweeps)
        made[sweeps] = rounded(ratio, [hessian[None]], -7, 7)
    found = made[20]
    assert (errors(found) <= errors(made[0]) * (1 + 1e-5)).all()
    assert errors(found).sum() < errors(made[0]).sum()
    for column in range(24):
        for step in (-1, 1):
            other = found.clone()
            other[:, column] = (other[:, column] + step).clamp(-7, 7)
            assert (errors(other) >= errors(found) * (1 - 1e-5)).all()


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batches_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    x = torch.randn(200, 24) @ torch.randn(24, 24)
    ratio, hessian = torch.randn(6, 24) * 3, (x.T @ x)[None]
    expected = rounded(ratio, [hessian], -7, 7)
    monkeypatch.setattr(second_order, "BATCH", batch)
    assert torch.equal(rounded(ratio, [hessian], -7, 7), expected)


def test_blocks_of_a_hessian_are_rounded_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(20, 5)
    monkeypatch.setattr(second_order, "LARGEST", 8)
    assert [part.stop - part.start for part in blocks_of(layer)] == [8, 8, 4]
    x = alike((30, 20))
    ratio = layer.weight.detach() * 20
    found = rounded(ratio, hessians(layer, x), -7, 7)
    for part in blocks_of(layer):
        own = x[:, part].T @ x[:, part]
        assert torch.equal(found[:, part], rounded(ratio[:, part], [own[None]], -7, 7))


def test_sums_that_lost_their_smallest_parts_are_damped_more() -> None:
    """As float32 leaves them beside a channel that is a million times larger."""
    x = torch.randn(50, 12)
    hessian = x.T @ x
    hessian[0, 0] -= 1.5 * hessian[0, 0]
    assert torch.linalg.eigvalsh(hessian + second_order.DAMPING * hessian.diagonal().mean() * torch.eye(12))[0] < 0
    found = rounded(torch.randn(5, 12) * 3, [hessian[None]], -7, 7)
    assert torch.equal(found, found.round().clamp(-7, 7))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_sums_that_are_not_finite_are_refused(value: float) -> None:
    hessian = torch.eye(6)
    hessian[2, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        rounded(torch.randn(5, 6), [hessian[None]], -7, 7)
