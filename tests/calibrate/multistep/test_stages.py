"""The plan of a fit: what is fitted in which order, over which steps, at what learning rate."""

from __future__ import annotations

import pytest

from dq_toolchain.calibrate.multistep.stages import plan
from dq_toolchain.toolchain.recipe.sections import CalibrateSection
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups


def test_rounding_comes_before_scales_and_scales_before_ranges() -> None:
    stages = plan(CalibrateSection(warmup=9, settling=60, group_iterations=5), even_step_groups(20, 5))
    order = ("rounding", "scales", "ranges")
    ranks = [order.index(stage.learned) for stage in stages]
    assert ranks == sorted(ranks)
    assert set(ranks) == {0, 1, 2}


def test_stages_that_learn_rounding_share_one_falling_learning_rate() -> None:
    stages = plan(CalibrateSection(warmup=30, iterations=10), even_step_groups(20, 5))
    rates = [stage.rate(i) for stage in stages if stage.learned == "rounding" for i in range(stage.iterations)]
    assert len(rates) == 40
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01


@pytest.mark.parametrize("calls", [3, 20])
def test_segments_fit_into_the_trajectory_and_step_groups_cover_it(calls: int) -> None:
    step_groups = even_step_groups(calls, 3)
    stages = plan(CalibrateSection(horizon=8, settling=60, group_iterations=5), step_groups)
    for stage in stages:
        assert 0 <= stage.window[0] <= stage.window[1] - stage.horizon
        assert stage.window[1] <= calls
    groups = [stage.window for stage in stages if stage.learned == "ranges"]
    assert groups == [(steps[0], steps[-1] + 1) for steps in step_groups]


def test_stages_without_iterations_are_left_out() -> None:
    settings = CalibrateSection(warmup=0, iterations=3, settling=0, group_iterations=0)
    assert [stage.name for stage in plan(settings, even_step_groups(20, 5))] == ["multi-step"]
