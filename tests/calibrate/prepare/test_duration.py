"""What is said before the work starts: all parts of it, by one measured pass, and what the other efforts take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.methods import effective, resolve
from dq_toolchain.calibrate.prepare import duration
from dq_toolchain.calibrate.prepare.duration import passes, say_duration
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.console.progress import Reporter, roughly
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from tests.calibrate.conftest import QUIET, tiny_recipe

ACCUQUANT = resolve("accuquant")


class Heard(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def case(tiny_model: Path, tmp_path: Path) -> tuple[Context, Recipe]:
    recipe = effective(tiny_recipe(tiny_model, tmp_path))
    return setup(recipe), recipe


def with_calibrate(recipe: Recipe, **values: object) -> Recipe:
    return recipe.model_copy(update={"calibrate": recipe.calibrate.model_copy(update=values)})


def test_twice_the_work_is_twice_the_passes(case: tuple[Context, Recipe]) -> None:
    context, recipe = case
    once, twice = (passes(with_calibrate(recipe, samples=n), ACCUQUANT, context) for n in (80, 160))
    assert twice["FP32 rollouts"] == 2 * once["FP32 rollouts"]
    assert twice["held-out rollouts"] == once["held-out rollouts"] == 3 * recipe.reference.seeds * context.table.calls
    stages = ("warmup", "iterations", "settling", "group_iterations")
    double = with_calibrate(recipe, **{name: 50 * getattr(recipe.calibrate, name) for name in stages})
    assert passes(double, ACCUQUANT, context)["fit"] > 30 * passes(recipe, ACCUQUANT, context)["fit"]
    assert "fit" not in passes(recipe, resolve("mse"), context)
    assert passes(recipe, resolve("qdiffusion"), context)["fit"] > 0
    offload = recipe.model_copy(update={"run": recipe.run.model_copy(update={"offload": True})})
    assert passes(offload, ACCUQUANT, context)["fit"] > passes(recipe, ACCUQUANT, context)["fit"]


def test_minutes_are_said_with_what_other_efforts_take(
    case: tuple[Context, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, recipe = case
    monkeypatch.setattr(duration, "seconds_per_pass", lambda _context: 1.0)
    heard, wanted = Heard(), sum(passes(recipe, ACCUQUANT, context).values())
    say_duration(context, recipe, ACCUQUANT, heard)
    (line,) = heard.lines
    assert line.startswith(f"--effort standard: about {roughly(wanted)} here (FP32 rollouts ")
    assert "quick takes about " in line
    assert "best takes about " in line


def test_an_effort_that_refuses_what_was_set_is_left_out(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 8 bits only the best has iterations that learn rounding."""
    settings: dict[str, dict[str, Any]] = {
        "model": {"path": tiny_model},
        "run": {"out": tmp_path, "device": "cpu"},
        "calibrate": {"effort": "best", "rounding": "learned"},
    }
    recipe = effective(load_recipe(None, settings))
    monkeypatch.setattr(duration, "seconds_per_pass", lambda _context: 1.0)
    heard = Heard()
    say_duration(setup(recipe), recipe, ACCUQUANT, heard)
    (line,) = heard.lines
    assert line.startswith("--effort best: about ")
    assert line.endswith(" ms a sample")


def test_a_pass_is_measured_on_the_network(case: tuple[Context, Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    context, recipe = case
    real = Denoiser.__call__

    def slow(self: Denoiser, x: Tensor, k: int) -> Tensor:
        time.sleep(0.05)
        return real(self, x, k)

    monkeypatch.setattr(Denoiser, "__call__", slow)
    assert 0.05 / len(context.samples) <= duration.seconds_per_pass(context) < 1.0
    monkeypatch.setattr(duration, "seconds_per_pass", None)
    say_duration(context, recipe, ACCUQUANT, QUIET)  # who is not to say anything does not measure either
