"""Bits and effort decide what nobody set: one table, whose first row is the sections' own defaults."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from dq_toolchain.toolchain.recipe.effort import TABLE, chosen, effective, overruled
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe


def recipe(**sections: dict[str, Any]) -> Recipe:
    return load_recipe(None, sections)


def test_the_defaults_of_the_sections_are_the_standard_row_of_eight_bits() -> None:
    assert effective(Recipe()) == Recipe()
    sections = TABLE["wide"]["standard"].sections()
    assert set(sections) <= set(Recipe.model_fields)
    for section, values in sections.items():
        assert values == {key: getattr(getattr(Recipe(), section), key) for key in values}


def test_every_row_holds_values_that_a_recipe_may_have() -> None:
    for rows in TABLE.values():
        for row in rows.values():
            assert Recipe.model_validate(row.sections()) is not None


def test_more_effort_is_never_less_work() -> None:
    work = ("samples", "warmup", "rows", "iterations", "activation_iterations")
    for rows in TABLE.values():
        assert list(rows) == ["quick", "standard", "best"]
        for less, more in pairwise(rows.values()):
            assert all(getattr(less, name) <= getattr(more, name) for name in work)


@pytest.mark.parametrize(
    "quantize",
    [{"weight_bits": 4}, {"weight_bits": 2}, {"weight_bits": 6}, {"activation_bits": 4}, {"budget": "size=0.2"}],
)
def test_narrow_bits_take_their_own_row(quantize: dict[str, Any]) -> None:
    found = effective(recipe(quantize=quantize))
    assert found.calibrate.samples == TABLE["narrow"]["standard"].samples
    assert found.calibrate.steps == "growth"
    assert found.blocks.rows == TABLE["narrow"]["standard"].rows
    assert found.quantize == recipe(quantize=quantize).quantize


@pytest.mark.parametrize("quantize", [{"weight_bits": 8}, {"weight_bits": 7}, {"activation_bits": 6}])
def test_wide_bits_take_the_first(quantize: dict[str, Any]) -> None:
    assert effective(recipe(quantize=quantize)).calibrate == Recipe().calibrate


def test_what_is_set_stays_even_if_it_is_the_default() -> None:
    found = effective(recipe(quantize={"weight_bits": 4}, calibrate={"samples": Recipe().calibrate.samples}))
    assert found.calibrate.samples == Recipe().calibrate.samples
    assert found.calibrate.warmup == TABLE["narrow"]["standard"].warmup


@pytest.mark.parametrize(
    ("sections", "rounding"),
    [
        ({}, "closed-form"),
        ({"calibrate": {"warmup": 9}}, "closed-form+learned"),
        ({"calibrate": {"iterations": 9}}, "closed-form+learned"),
        ({"calibrate": {"settling": 9}}, "closed-form"),
        ({"quantize": {"weight_bits": 4}}, "closed-form+learned"),
        ({"quantize": {"weight_bits": 4}, "calibrate": {"warmup": 0}}, "closed-form"),
    ],
)
def test_rounding_is_learned_where_iterations_do_and_there_is_room(
    sections: dict[str, dict[str, Any]], rounding: str
) -> None:
    assert effective(recipe(**sections)).calibrate.rounding == rounding
    assert effective(recipe(**sections, run={"offload": True})).calibrate.rounding == "closed-form"
    own = {**sections, "calibrate": {**sections.get("calibrate", {}), "rounding": "learned"}}
    assert effective(recipe(**own, run={"offload": True})).calibrate.rounding == "learned"


def test_filling_in_twice_is_filling_in_once_and_what_was_chosen_is_still_known() -> None:
    given = recipe(quantize={"weight_bits": 4}, calibrate={"warmup": 7, "effort": "best"})
    once = effective(given)
    assert effective(once) == once
    assert chosen(once) == chosen(given)
    assert "warmup" not in chosen(once)["calibrate"]
    assert once.calibrate.model_fields_set == given.calibrate.model_fields_set
    assert given.calibrate.samples == Recipe().calibrate.samples  # the recipe that was given is as it was


def test_another_effort_or_width_of_a_filled_in_recipe_takes_its_own_row() -> None:
    """As `compare` does, which changes bits cell by cell."""
    filled = effective(recipe(quantize={"weight_bits": 4}))
    wide = filled.model_copy(update={"quantize": filled.quantize.model_copy(update={"weight_bits": 8})})
    assert effective(wide).calibrate == Recipe().calibrate


def test_settings_that_overrule_an_effort_are_named_and_only_those() -> None:
    quick = TABLE["wide"]["quick"]
    assert overruled(recipe(calibrate={"effort": "quick"})) == []
    assert overruled(recipe(calibrate={"samples": 999})) == []  # nobody asked for an effort
    assert overruled(recipe(calibrate={"effort": "quick", "samples": quick.samples})) == []
    assert overruled(recipe(calibrate={"effort": "quick", "samples": 999}, blocks={"rows": 9})) == [
        f"[calibrate] samples = 999 (quick takes {quick.samples})",
        f"[blocks] rows = 9 (quick takes {quick.rows})",
    ]
