"""Step groups go by timestep: the calibrated timesteps keep theirs, every other call takes the nearest one's."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from dq_toolchain.toolchain.errors import RecipeError, SamplerError
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.samplings import (
    MOST,
    Sampling,
    all_timesteps,
    check_wanted,
    chosen,
    step_groups_at,
)
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups

SCHEDULERS: dict[str, Any] = {
    "leading": DDIMScheduler(clip_sample=False),
    "trailing": DDIMScheduler(clip_sample=False, timestep_spacing="trailing"),
    "Karras sigmas": EulerDiscreteScheduler(use_karras_sigmas=True),
    "two calls at a timestep": HeunDiscreteScheduler(),
    "a timestep twice at the start": PNDMScheduler(skip_prk_steps=True),
    "flow matching, shifted": FlowMatchEulerDiscreteScheduler(shift=3.0),
}
FEW, MANY = 5, 12


@pytest.mark.parametrize("name", SCHEDULERS)
def test_calibrated_timesteps_keep_their_groups_and_others_cover_all_calls(name: str) -> None:
    own, few, many = (probe(SCHEDULERS[name], steps).timesteps for steps in (8, FEW, MANY))
    for count in range(1, len(own) + 1):
        groups = even_step_groups(len(own), count)
        assert step_groups_at(own, own, groups) == groups
        for other in (few, many):
            found = step_groups_at(other, own, groups)
            assert len(found) == count
            assert [k for calls in found for k in calls] == list(range(len(other)))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_call_takes_the_group_of_the_nearest_calibrated_timestep(data: st.DataObject) -> None:
    falling = st.lists(st.integers(0, 999), min_size=1, max_size=20, unique=True).map(lambda t: sorted(t, reverse=True))
    own, other = data.draw(falling), data.draw(falling)
    groups = even_step_groups(len(own), data.draw(st.integers(1, len(own))))
    for group, calls in enumerate(step_groups_at(other, own, groups)):
        for k in calls:
            distance = min(abs(own[c] - other[k]) for c in groups[group])
            elsewhere = [abs(own[c] - other[k]) for g, cs in enumerate(groups) if g != group for c in cs]
            assert all(distance <= each for each in elsewhere)


def test_half_way_the_noisier_group_counts_and_the_ends_reach_out() -> None:
    groups = ((0,), (1, 2), (3,))
    assert step_groups_at((999, 750, 749, 500, 100, 0), (900, 600, 400, 200), groups) == ((0, 1), (2, 3), (4, 5))


def test_between_two_calls_at_one_timestep_the_first_takes_the_first_ones_group() -> None:
    own, groups = (900, 600, 600, 300), ((0, 1), (2, 3))
    assert step_groups_at((900, 610, 610, 590, 590, 300), own, groups) == ((0, 1), (2, 3, 4, 5))
    assert step_groups_at((600,), own, groups) == ((0,), ())


def sampling(steps: int, guidance: float = 1.0) -> Sampling:
    table = probe(SCHEDULERS["leading"], steps)
    return Sampling(steps, guidance, table, even_step_groups(table.calls, 1))


def test_all_timesteps_of_all_tables_come_once() -> None:
    own, others = probe(SCHEDULERS["leading"], 4), [sampling(2), sampling(5)]
    found = all_timesteps(own, others)
    assert set(found) == {*own.timesteps, *(t for each in others for t in each.table.timesteps)}
    assert found[: own.calls] == own.timesteps
    assert len(set(found)) == len(found)
    assert all_timesteps(own) == own.timesteps


def test_it_comes_back_from_json() -> None:
    assert Sampling.from_json(sampling(3, 7.1).to_json()) == sampling(3, 7.1)


@pytest.mark.parametrize(
    ("steps", "guidance", "text"),
    [
        ((8, 8), (), "--s: got 8 twice"),
        ((), (1.5, 1.5), "--g: got 1.5 twice"),
        (range(1, MOST + 2), (), f"allowed are {MOST}"),
    ],
)
def test_what_is_asked_twice_or_too_much_is_refused(steps: Any, guidance: Any, text: str) -> None:
    check_wanted(tuple(range(1, MOST + 1)), (), ("--s", "--g"))
    with pytest.raises(RecipeError, match=text):
        check_wanted(tuple(steps), guidance, ("--s", "--g"))


def test_each_count_is_taken_with_each_scale_and_what_is_not_there_is_named() -> None:
    every = [sampling(8), sampling(8, 3.0), sampling(20, 1.0), sampling(50, 3.0)]
    assert chosen(every, 20, 3.0, (), ()) == ()
    assert chosen(every, 20, 3.0, (20,), (3.0,)) == ()
    assert chosen(every, 20, 3.0, (50, 8), ()) == (every[1], every[3])
    assert set(chosen(every, 20, 3.0, (8,), (1.0,))) == {every[0], every[1], every[2]}
    with pytest.raises(SamplerError, match=r"no FP32 rollouts of 10 steps, guidance 3 .*8 steps.*--more-steps"):
        chosen(every, 20, 3.0, (10,), ())
