"""Gradient-aligned row weights: the score is the product of gradients, and a row that disagrees with the others loses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks.row_weights import ALIGNMENT, LIMIT, RowWeights

ROWS, PLANTED = 40, 17
TIMESTEP = torch.arange(ROWS).remainder(20).float()
Losses = Callable[[Tensor], Tensor]


def regression() -> tuple[Losses, nn.Parameter]:
    """Rows (x, y) of one linear map; the target of one row has the wrong sign."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 6, generator=generator)
    y = x @ torch.randn(6, 3, generator=generator)
    y[PLANTED] *= -2
    weight = nn.Parameter(torch.zeros(6, 3))
    return lambda index: (x[index] @ weight - y[index]).square().sum(1), weight


def test_scores_are_the_products_of_gradients() -> None:
    losses, weight = regression()
    rows = RowWeights(TIMESTEP)
    index, validation = torch.arange(0, ROWS, 2), torch.arange(1, ROWS, 2)

    def gradient(of: Tensor) -> Tensor:
        return torch.autograd.grad(losses(of).mean(), weight)[0]

    outer, expected = gradient(validation), []
    for i in index:
        part = rows.part[index]
        others = [gradient(index[part == g]) for g in part.unique() if g != rows.part[i]]
        expected.append((gradient(i[None]) * (outer + ALIGNMENT * sum(others))).sum())
    before = weight.detach().clone()
    found = rows.scores(index, validation, losses, [weight])
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-2)
    assert torch.equal(weight.detach(), before)


def test_rows_fall_into_five_timestep_groups_of_equal_width() -> None:
    part = RowWeights(TIMESTEP).part
    assert part.tolist() == [int(t) // 4 for t in TIMESTEP]


def test_weights_start_equal_have_mean_one_and_stay_bounded() -> None:
    losses, weight = regression()
    rows, index = RowWeights(TIMESTEP), torch.arange(8)
    torch.testing.assert_close(rows.of(index), torch.ones(8))
    for _ in range(200):
        rows.update(index, torch.arange(8, 16), losses, [weight])
    torch.testing.assert_close(rows.of(index).mean(), torch.tensor(1.0))  # a sum of floats: to the last bit on no CPU
    assert float(rows.logits.abs().max()) <= LIMIT
    assert float(rows.logits[8:].abs().max()) == 0.0


def test_a_row_with_a_corrupted_target_gets_the_smallest_weight() -> None:
    losses, weight = regression()
    rows, generator = RowWeights(TIMESTEP), torch.Generator().manual_seed(1)
    adam = torch.optim.Adam([weight], lr=2e-2)
    validation = torch.arange(0, ROWS, 8)
    fitted = torch.tensor([row for row in range(ROWS) if row % 8])
    for iteration in range(100):
        index = fitted[torch.randperm(len(fitted), generator=generator)[:16]]
        if iteration % 2 == 0:
            rows.update(index, validation, losses, [weight])
        adam.zero_grad()
        (losses(index) * rows.of(index)).mean().backward()
        adam.step()
    assert int(rows.logits[fitted].argmin()) == int((fitted == PLANTED).nonzero())
    weights = rows.of(fitted)
    assert float(weights[fitted == PLANTED]) < 0.5 * float(weights[fitted != PLANTED].mean())


def test_no_gradient_leaves_the_weights_as_they_are() -> None:
    rows, weight = RowWeights(TIMESTEP), nn.Parameter(torch.zeros(3))
    rows.update(torch.arange(4), torch.arange(4), lambda index: (weight * 0).sum().expand(len(index)), [weight])
    assert torch.equal(rows.logits, torch.zeros(ROWS))
