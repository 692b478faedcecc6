"""Gradients of the objectives over a trajectory are those of what they say; flips keep only what improves."""

from __future__ import annotations

import pytest
import torch
from benchmarks.common import NoCheckpoint, Prepared, prepare, work_of
from benchmarks.step_sums import Ground
from torch import Tensor

from benchmarks import flips, step_sums
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import State, rollout
from tests.calibrate.conftest import tiny_recipe
from tests.tiny import write_tiny_model

FITTED = 6


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("tiny")
    bits = {
        "weight_bits": 4,
        "activation_bits": 16,
    }  # of 16 bits there are no integer products, whose last digits differ
    return prepare(tiny_recipe(write_tiny_model(folder), folder, quantize=bits, sampler={"steps": 4, "guidance": 1.0}))


@pytest.fixture
def ground(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """Gains of four trajectories; pools of four, each step visited once."""
    monkeypatch.setattr(step_sums, "BATCH", 4)
    monkeypatch.setattr(step_sums, "VISITS", 1)
    network = work_of(prepared, prepared.recipe, NoCheckpoint()).network
    return Ground.measured(prepared, network, FITTED)


def drawn(ground: Ground) -> tuple[Denoiser, Tensor, Tensor]:
    """What an objective draws first."""
    return ground.drawn(torch.Generator().manual_seed(0), 4)


def gradients(ground: Ground) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in ground.network.named_parameters() if p.grad is not None}
    ground.network.zero_grad()
    return found


def assert_alike(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert largest > 0
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-3, atol=2e-4 * largest)


def of_one_pool(ground: Ground, objective: step_sums.Passes) -> tuple[dict[str, Tensor], int]:
    """Gradients of all visits of a pool, with the network as it is, and their passes."""
    spent = sum(next(objective) for _ in range(ground.prepared.context.table.calls))
    return gradients(ground), spent


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_pool_gives_the_gradient_of_the_root_of_the_sum(ground: Ground, share: float) -> None:
    found, spent = of_one_pool(ground, step_sums.sum_of_steps(ground, torch.Generator().manual_seed(0), share))
    denoiser, latents, outputs = drawn(ground)
    errors = torch.stack([denoiser(latents[k], k) for k in range(len(outputs))]) - outputs
    carried = ground.gain.view(-1, *[1] * (errors.dim() - 1)) * errors
    power = share * carried.sum(0).flatten(1).square().sum(1) + (1 - share) * carried.flatten(2).square().sum((0, 2))
    power.sqrt().sum().backward()
    assert_alike(found, gradients(ground))
    assert spent == 2 * 4 * 4  # a sweep without gradient, and each step once with it


def test_a_carried_sum_reaches_each_step_by_the_derivative_of_fp32(ground: Ground) -> None:
    found, spent = of_one_pool(ground, step_sums.carried_sum(ground, torch.Generator().manual_seed(0), 1.0))
    denoiser, latents, outputs = drawn(ground)
    context = ground.prepared.context
    exact = Denoiser(context.network, context.table, denoiser.conditioning, context.guidance)
    with torch.no_grad():
        error = rollout(context.table, denoiser, latents[0])[-1] - latents[-1]
    added, state = [torch.zeros_like(f, requires_grad=True) for f in outputs], State((latents[0],))
    for k, change in enumerate(added):
        state = state.after(context.table, k, exact(state.latent, k) + change)
    (error / error.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * state.latent).sum().backward()
    for k, change in enumerate(added):
        denoiser(latents[k], k).backward(change.grad)
    assert_alike(found, gradients(ground))
    assert spent == 3 * 4 * 4


def test_gains_are_those_of_the_sampler_where_nothing_comes_after(ground: Ground) -> None:
    table = ground.prepared.context.table
    assert float(ground.gain[-1]) == pytest.approx(table.b[-1][0], rel=1e-3)
    assert float(ground.growth[-1]) == pytest.approx(1.0, rel=1e-3)
    assert float(ground.explained[-1]) == pytest.approx(1.0, rel=1e-3)


def test_segments_take_the_passes_of_a_batch(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_sums, "HORIZONS", (1, 2, 4))
    objective = step_sums.random_horizons(ground, torch.Generator().manual_seed(0))
    assert {next(objective) for _ in range(6)} == {4}
    assert gradients(ground)


@pytest.mark.parametrize("shares", [(1.0,), (0.1, 0.01, 0.001)])
def test_flips_stay_only_where_whole_runs_improve(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...]
) -> None:
    for name, value in (("TRAJECTORIES", 4), ("JUDGES", 2), ("NEAR", 0.0), ("SHARES", shares)):
        monkeypatch.setattr(flips, name, value)
    layers = ground.network.layers
    before = {name: layer.weight_quantizer.export()[0] for name, layer in layers.items()}
    error = flips._judged(ground)
    _, kept, flipped = flips.flip(ground, torch.Generator().manual_seed(0), 1.0)
    changes = [layers[name].weight_quantizer.export()[0] - integers for name, integers in before.items()]
    assert sum(int(change.count_nonzero()) for change in changes) == flipped
    assert max(int(change.abs().max()) for change in changes) <= 1
    after = flips._judged(ground)
    assert after < error if kept else after == error
    assert kept or shares == (1.0,)  # few integers improve, as the gradient promises
