"""The estimate grows with what is held, and what does not fit is refused before anything starts, with what would fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from dq_toolchain.calibrate.data import context as data_context
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.prepare import memory
from dq_toolchain.calibrate.prepare import setup as module
from dq_toolchain.calibrate.prepare.memory import MARGIN, check_memory, estimate
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests.calibrate.conftest import tiny_recipe

QUIET, ACCUQUANT = Reporter(quiet=True), resolve("accuquant")


@pytest.fixture
def case(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Context, Recipe]:
    """A tiny model that counts as a large one."""
    monkeypatch.setattr(module, "SMALL_NETWORK", 0)
    recipe = tiny_recipe(tiny_model, tmp_path, calibrate={"batch": 64})
    return setup(recipe), recipe


def offloaded(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"offload": True})})


def test_a_fit_needs_more_than_ranges_and_offload_needs_less(case: tuple[Context, Recipe]) -> None:
    context, recipe = case
    weights = sum(p.numel() for p in context.prepared.network.parameters())
    full, ranges = estimate(context, recipe, ACCUQUANT), estimate(context, recipe, resolve("mse"))
    small = estimate(context, offloaded(recipe), ACCUQUANT)
    assert full.weights == 12 * 4 * weights
    assert ranges.weights == 4 * weights
    assert ranges.weights < small.weights < full.weights
    assert small.activations < full.activations


def test_activations_follow_the_batch(case: tuple[Context, Recipe]) -> None:
    context, recipe = case
    double = recipe.model_copy(
        update={"calibrate": recipe.calibrate.model_copy(update={"batch": 16 * recipe.calibrate.batch})}
    )
    assert estimate(context, double, ACCUQUANT).activations > 10 * estimate(context, recipe, ACCUQUANT).activations


def test_large_activations_are_run_few_at_a_time(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_NETWORK", 0)
    recipe = tiny_recipe(tiny_model, tmp_path)
    assert setup(recipe).rollout_batch == 32
    monkeypatch.setattr(data_context, "ACTIVATION_LIMIT", 1)
    assert setup(recipe).rollout_batch == 1


def test_what_does_not_fit_is_refused_with_what_would(
    case: tuple[Context, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, recipe = case
    need, small = (estimate(context, r, ACCUQUANT).on(context.device) for r in (recipe, offloaded(recipe)))
    for free, settings, message in ((need - 1, recipe, r"add --offload, which needs about 1\.\d GiB"),
                                    (small - 1, recipe, r"with --offload; lower \[calibrate\] batch"),
                                    (small - 1, offloaded(recipe), r"are free; lower \[calibrate\] batch")):  # fmt: skip
        monkeypatch.setattr(memory, "_free", lambda _device, free=free: free)
        with pytest.raises(CalibrationError, match=message):
            check_memory(context, settings, ACCUQUANT, QUIET)
    monkeypatch.setattr(memory, "_free", lambda _device: need)
    check_memory(context, recipe, ACCUQUANT, QUIET)
    assert need > MARGIN


def test_a_small_network_is_not_worth_a_thought(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path)
    monkeypatch.setattr(memory, "_free", lambda _device: 0)
    check_memory(setup(recipe), recipe, ACCUQUANT, QUIET)
    monkeypatch.setattr(module, "SMALL_NETWORK", 0)
    large = setup(recipe)
    with pytest.raises(CalibrationError):
        check_memory(large, recipe, ACCUQUANT, QUIET)
