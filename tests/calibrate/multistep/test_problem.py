"""Segments are drawn alike by whoever draws them, from the fitted samples alone; the others judge."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.multistep.objective import FLOOR
from dq_toolchain.calibrate.multistep.problem import Problem, Segment
from dq_toolchain.calibrate.multistep.stages import Stage
from dq_toolchain.calibrate.work.workers import Workers
from tests.calibrate.multistep.test_growth import SLOPE, Still, exact, problem_with, targets_of

STAGE = Stage(
    name="test", iterations=10, horizon=2, window=(1, 4), learned="rounding", inherited=False, gradient="adjoint"
)


class Answering(nn.Module):
    """Stands for a quantized network that answers ``factor`` times its input."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def set_step(self, k: int) -> None: ...

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (self.factor * sample,)


def within(problem: Problem, **changes: Any) -> Problem:
    """The same in another context."""
    return replace(problem, context=replace(problem.context, **changes))


def draw(problem: Problem, iteration: int = 0, stage_index: int = 0, stage: Stage = STAGE) -> Segment:
    return problem.draw(Still(), stage, stage_index, iteration)  # type: ignore[arg-type]


def test_a_draw_follows_from_seed_stage_and_iteration_alone() -> None:
    problem = replace(problem_with(None), settings=problem_with(None).settings.model_copy(update={"batch": 8}))
    first, again = draw(problem, 3), draw(problem, 3)
    assert first.first == again.first
    assert torch.equal(first.targets, again.targets)
    others = [draw(problem, 4), draw(problem, 3, 1), draw(within(problem, seed=1), 3)]
    assert all(not torch.equal(first.targets[-1], other.targets[-1]) for other in others)


def test_a_segment_starts_on_the_fp32_trajectory_of_samples_that_are_fitted() -> None:
    problem = problem_with(None)
    for iteration in range(20):
        segment = draw(problem, iteration)
        assert STAGE.window[0] <= segment.first <= STAGE.window[1] - STAGE.horizon
        assert len(segment.targets) == STAGE.horizon + 1
        assert torch.equal(segment.start.latents[0], segment.targets[0])
        known = problem.targets.latents[segment.first, : problem.fitted]
        assert all(any(torch.equal(x, row) for row in known) for x in segment.start.latents[0])


def test_the_shares_of_two_processes_are_the_draw_of_one() -> None:
    one = replace(problem_with(None), settings=problem_with(None).settings.model_copy(update={"batch": 8}))
    for iteration in range(5):
        whole = draw(one, iteration)
        parts = [draw(within(one, workers=Workers(rank, 2)), iteration) for rank in range(2)]
        assert {part.first for part in parts} == {whole.first}
        assert torch.equal(torch.cat([part.targets for part in parts], dim=1), whole.targets)


@pytest.mark.parametrize(("factor", "error"), [(SLOPE, 2 * math.log10(FLOOR)), (2 * SLOPE, None), (math.nan, math.inf)])
def test_samples_that_judge_tell_an_exact_network_from_a_wrong_and_a_broken_one(
    factor: float, error: float | None
) -> None:
    problem = problem_with(None)
    targets = targets_of(problem.context.table, exact)
    samples = replace(problem.context.samples.select(slice(0, targets.outputs.shape[1])), start=targets.latents[0])
    problem = within(replace(problem, targets=targets), samples=samples)
    found = problem.validation_error(Answering(factor))  # type: ignore[arg-type]
    assert (found > -4) if error is None else found == pytest.approx(error, abs=0.01)
