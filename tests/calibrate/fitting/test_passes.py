"""Passes are counted as the fit makes them, and the time left follows from the first iterations."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.calibrate.fitting.passes import FITTED, GRADIENT, iteration_passes, paced, stage_passes
from dq_toolchain.calibrate.multistep.problem import Problem
from dq_toolchain.calibrate.multistep.stages import Stage, plan
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.console.progress import roughly
from dq_toolchain.toolchain.recipe.sections import CalibrateSection
from tests.calibrate.conftest import QUIET, tiny_recipe

SINGLE = Stage(
    name="one", iterations=100, horizon=1, window=(0, 20), learned="rounding", inherited=False, gradient="adjoint"
)


def test_an_iteration_costs_what_its_gradient_takes() -> None:
    assert iteration_passes(SINGLE, 16) == 16 * GRADIENT * FITTED
    segment = replace(SINGLE, horizon=4)
    assert iteration_passes(segment, 16) == 8 * 15 * FITTED  # 2n - 1 forward, n backward
    assert iteration_passes(replace(segment, gradient="full"), 16) == 8 * 12 * FITTED
    rolled_in = iteration_passes(replace(segment, inherited=True, window=(16, 20)), 16)
    assert rolled_in == iteration_passes(segment, 16) + 8 * 16


def test_validations_are_those_that_the_fit_makes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage starts from an iterate that the one before has validated: only the first validates its start."""
    found: list[float] = []
    real = Problem.validation_error

    def counted(self: Problem, network: Any) -> float:
        found.append(real(self, network))
        return found[-1]

    monkeypatch.setattr(Problem, "validation_error", counted)
    recipe = tiny_recipe(tiny_model, tmp_path, calibrate={"warmup": 12, "iterations": 0})
    _, artifact, _ = calibrate(recipe, QUIET)
    stages = plan(recipe.calibrate, artifact.step_groups)
    validations = [1 + 3, 1, 1, 1]  # 12 iterations are judged after 5, 10 and 12 of them
    assert len(found) == sum(validations)
    validating = 7
    for stage, passes, runs in zip(stages, stage_passes(stages, 4, validating), validations, strict=True):
        assert passes - stage.iterations * iteration_passes(stage, 4) == pytest.approx(runs * validating)
    scores = [stage["validation_psnr"] for stage in artifact.record["stages"]]
    assert scores == sorted(scores)  # no stage ends worse than it began


def test_the_time_left_is_told_once_from_the_first_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said, told = [0.0], list[str](), list[int]()
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    stages = plan(
        CalibrateSection(warmup=100, settling=0, group_iterations=0, iterations=0), tuple((k,) for k in range(20))
    )
    advance = paced(stages, 16, 0, lambda n, _note: told.append(n), said.append)
    advance(20)  # of an earlier run
    for _ in range(80):
        clock[0] += 10.0
        advance(1, "a loss")
    assert sum(told) == 100
    assert said == [f"fitting: about {roughly(70 * 10.0)} left, by its first 10 iterations"]


def test_stages_that_cost_more_count_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = [0.0], list[str]()
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    stages = (replace(SINGLE, iterations=20), replace(SINGLE, horizon=4, iterations=20))
    advance = paced(stages, 16, 0, lambda _n, _note: None, said.append)
    for _ in range(10):
        clock[0] += 10.0
        advance(1, "a loss")
    ratio = iteration_passes(stages[1], 16) / iteration_passes(stages[0], 16)
    assert said == [f"fitting: about {roughly(10 * 10.0 + 20 * 10.0 * ratio)} left, by its first 10 iterations"]
