"""Every site is observed in its own step group, alike during the rollouts and after them, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.measure import Histograms, choose_all, observe_chosen, observe_rollouts
from dq_toolchain.toolchain.errors import CalibrationError
from tests.calibrate.conftest import tiny_recipe

SAMPLES = 3


@pytest.fixture(scope="module")
def context(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Context:
    out = tmp_path_factory.mktemp("measure")
    few, attention = {"samples": SAMPLES}, {"step_groups": 2, "attention": "int8"}
    return setup(tiny_recipe(tiny_model, out, calibrate=few, quantize=attention))


@pytest.fixture(scope="module")
def observed(context: Context) -> tuple[Rollouts, Histograms]:
    return observe_rollouts(context)


def test_every_site_is_seen_in_every_step_group(context: Context, observed: tuple[Rollouts, Histograms]) -> None:
    targets, histograms = observed
    assert targets.outputs.shape[:2] == (context.table.calls, SAMPLES)
    assert [len(row) for row in histograms] == [len(context.prepared.sites)] * len(context.step_groups)
    assert all(float(histogram.counts.sum()) > 0 for row in histograms for histogram in row)


def test_the_ends_are_those_of_what_the_layer_is_given(context: Context, observed: tuple[Rollouts, Histograms]) -> None:
    """The first convolution takes the latents themselves."""
    targets, histograms = observed
    column = [site.name for site in context.prepared.sites].index("conv_in:input")
    for group, steps in enumerate(context.step_groups):
        seen = torch.stack([targets.latents[k] * context.table.input_scale[k] for k in steps])
        found = histograms[group][column]
        assert (found.low, found.high) == pytest.approx((float(seen.min()), float(seen.max())), rel=1e-5)


def test_known_rollouts_are_observed_as_those_that_are_run(
    context: Context, observed: tuple[Rollouts, Histograms]
) -> None:
    targets, wanted = observed
    found = observe_chosen(context, targets, None, lambda n=1: None)
    for row, expected in zip(found, wanted, strict=True):
        for one, other in zip(row, expected, strict=True):
            assert float(one.counts.sum()) == float(other.counts.sum())
            assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-4, abs=1e-5)


def test_a_step_group_of_which_nothing_was_chosen_takes_the_nearest_ones_ranges(
    context: Context, observed: tuple[Rollouts, Histograms], tiny_model: Path, tmp_path: Path
) -> None:
    settings = tiny_recipe(tiny_model, tmp_path).calibrate
    chosen = torch.zeros(context.table.calls, SAMPLES, dtype=torch.bool)
    chosen[list(context.step_groups[0])] = True
    histograms = observe_chosen(context, observed[0], chosen, lambda n=1: None)
    scale, zero_point = choose_all(context, histograms, settings)
    assert torch.equal(scale[0], scale[1])
    assert torch.equal(zero_point[0], zero_point[1])
    apart, _ = choose_all(context, observed[1], settings)
    assert not torch.equal(apart[0], apart[1])


@pytest.fixture
def broken(context: Context) -> Iterator[str]:
    """A layer that answers NaN, for a while."""
    layer = context.network.get_submodule("down_blocks.0.resnets.0.conv1")
    handle = layer.register_forward_hook(lambda _module, _inputs, out: out * torch.nan)
    yield "down_blocks.0.resnets.0.conv2:input"
    handle.remove()


def test_what_is_not_finite_is_named_by_the_first_site_that_gets_it(context: Context, broken: str) -> None:
    with pytest.raises(CalibrationError, match=broken):
        observe_rollouts(context)


def test_nothing_is_left_in_the_network(context: Context, observed: tuple[Rollouts, Histograms]) -> None:
    for module in context.network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        if isinstance(module, Attention):
            assert "Product" not in type(module.processor).__name__
