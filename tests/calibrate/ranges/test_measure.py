"""Every site is observed in its own step group, alike during the rollouts and after them, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention

from dq_toolchain.calibrate.data.fp32_rollouts import Rollouts
from dq_toolchain.calibrate.prepare.setup import Setup, setup
from dq_toolchain.calibrate.ranges.measure import Histograms, choose_all, observe_chosen, observe_rollouts
from dq_toolchain.toolchain.errors import CalibrationError
from tests.calibrate.conftest import tiny_recipe

SAMPLES = 3


@pytest.fixture(scope="module")
def state(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    out = tmp_path_factory.mktemp("measure")
    few, attention = {"samples": SAMPLES}, {"step_groups": 2, "attention": "int8"}
    return setup(tiny_recipe(tiny_model, out, calibrate=few, quantize=attention))


@pytest.fixture(scope="module")
def observed(state: Setup) -> tuple[Rollouts, Histograms]:
    return observe_rollouts(state, state.guidance, lambda n=1: None)


def test_every_site_is_seen_in_every_step_group(state: Setup, observed: tuple[Rollouts, Histograms]) -> None:
    targets, histograms = observed
    assert targets.outputs.shape[:2] == (state.table.calls, SAMPLES)
    assert [len(row) for row in histograms] == [len(state.prepared.sites)] * len(state.step_groups)
    assert all(float(histogram.counts.sum()) > 0 for row in histograms for histogram in row)


def test_the_ends_are_those_of_what_the_layer_is_given(state: Setup, observed: tuple[Rollouts, Histograms]) -> None:
    """The first convolution takes the latents themselves."""
    targets, histograms = observed
    column = [site.name for site in state.prepared.sites].index("conv_in:input")
    for group, steps in enumerate(state.step_groups):
        seen = torch.stack([targets.latents[k] * state.table.input_scale[k] for k in steps])
        found = histograms[group][column]
        assert (found.low, found.high) == pytest.approx((float(seen.min()), float(seen.max())), rel=1e-5)


def test_known_rollouts_are_observed_as_those_that_are_run(state: Setup, observed: tuple[Rollouts, Histograms]) -> None:
    targets, wanted = observed
    found = observe_chosen(state, targets, None, state.guidance, lambda n=1: None)
    for row, expected in zip(found, wanted, strict=True):
        for one, other in zip(row, expected, strict=True):
            assert float(one.counts.sum()) == float(other.counts.sum())
            assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-4, abs=1e-5)


def test_a_step_group_of_which_nothing_was_chosen_takes_the_nearest_ones_ranges(
    state: Setup, observed: tuple[Rollouts, Histograms], tiny_model: Path, tmp_path: Path
) -> None:
    settings = tiny_recipe(tiny_model, tmp_path).calibrate
    chosen = torch.zeros(state.table.calls, SAMPLES, dtype=torch.bool)
    chosen[list(state.step_groups[0])] = True
    histograms = observe_chosen(state, observed[0], chosen, state.guidance, lambda n=1: None)
    scale, zero_point = choose_all(state, histograms, settings)
    assert torch.equal(scale[0], scale[1])
    assert torch.equal(zero_point[0], zero_point[1])
    apart, _ = choose_all(state, observed[1], settings)
    assert not torch.equal(apart[0], apart[1])


@pytest.fixture
def broken(state: Setup) -> Iterator[str]:
    """A layer that answers NaN, for a while."""
    layer = state.prepared.network.get_submodule("down_blocks.0.resnets.0.conv1")
    handle = layer.register_forward_hook(lambda _module, _inputs, out: out * torch.nan)
    yield "down_blocks.0.resnets.0.conv2:input"
    handle.remove()


def test_what_is_not_finite_is_named_by_the_first_site_that_gets_it(state: Setup, broken: str) -> None:
    with pytest.raises(CalibrationError, match=broken):
        observe_rollouts(state, state.guidance, lambda n=1: None)


def test_nothing_is_left_in_the_network(state: Setup, observed: tuple[Rollouts, Histograms]) -> None:
    for module in state.prepared.network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        if isinstance(module, Attention):
            assert "Product" not in type(module.processor).__name__
