"""Step groups cover every step once, in order, in nearly equal parts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dq_toolchain.toolchain.errors import ArtifactError, RecipeError
from dq_toolchain.toolchain.sampler.step_groups import check_step_groups, even_step_groups


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200).flatmap(lambda calls: st.tuples(st.just(calls), st.integers(1, calls))))
def test_groups_are_contiguous_complete_and_even(case: tuple[int, int]) -> None:
    calls, count = case
    groups = even_step_groups(calls, count)
    check_step_groups(groups, calls)
    assert len(groups) == count
    sizes = [len(steps) for steps in groups]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("calls", "count"), [(1, 1), (4, 4), (8, 8), (9, 5), (50, 5)])
def test_a_few_calls_have_a_group_each(calls: int, count: int) -> None:
    assert len(even_step_groups(calls)) == count


@pytest.mark.parametrize("count", [0, -1, 6])
def test_a_count_that_does_not_fit_is_refused_with_what_is_allowed(count: int) -> None:
    with pytest.raises(RecipeError, match=rf"1-5 .*got {count}; set --step-groups"):
        even_step_groups(5, count)


@pytest.mark.parametrize(
    "groups",
    [
        [[0, 1], [3]],
        [[1, 0], [2, 3]],
        [[0, 1], [1, 2, 3]],
        [[0, 1], [], [2, 3]],
        [[0, 1, 2, 3, 4]],
        [],
    ],
)
def test_groups_that_do_not_cover_the_steps_are_refused(groups: list[list[int]]) -> None:
    with pytest.raises(ArtifactError, match="step groups must cover steps 0-3"):
        check_step_groups(groups, 4)


@pytest.mark.parametrize(("calls", "groups"), [(1, 1), (2, 2), (4, 4), (5, 5), (20, 5), (1000, 5)])
def test_the_usual_number_is_at_most_the_number_of_calls(calls: int, groups: int) -> None:
    assert even_step_groups(calls) == even_step_groups(calls, groups)
    assert len(even_step_groups(calls)) == groups
