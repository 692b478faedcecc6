"""The control of AccuQuant: the same fit in single steps, for as many network passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from dq_toolchain.calibrate.compare.command import compare
from dq_toolchain.calibrate.compare.plan import Request
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.fitting.blocks import BLOCKS
from dq_toolchain.calibrate.fitting.multi_step import MULTI_STEP
from dq_toolchain.calibrate.fitting.passes import iteration_passes, stage_passes, validations
from dq_toolchain.calibrate.fitting.phase import phases_of
from dq_toolchain.calibrate.fitting.second_order import SECOND_ORDER
from dq_toolchain.calibrate.methods import effective, resolve
from dq_toolchain.calibrate.methods.single_step import SingleStep
from dq_toolchain.calibrate.multistep.stages import Stage
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Effort, Recipe
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups
from tests.calibrate.methods.test_methods import small

(SINGLE,) = resolve("single-step").fit
CALLS = 20


def recipe_of(**calibrate: Any) -> Recipe:
    quantize: dict[str, Any] = {}
    for name in {"weight_bits", "step_groups"} & calibrate.keys():
        quantize[name] = calibrate.pop(name)
    return effective(
        load_recipe(None, {"quantize": quantize, "calibrate": {"method": "single-step", **calibrate}}),
        as_published=True,
    )


def both(recipe: Recipe) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """AccuQuant's stages and the control's."""
    groups = even_step_groups(CALLS, recipe.quantize.step_groups)
    assert isinstance(SINGLE, SingleStep)
    return MULTI_STEP.stages(recipe, groups), SINGLE.stages(recipe, groups)


def passes_differ_by_less_than_one_iteration(recipe: Recipe) -> None:
    theirs, own = both(recipe)
    batch, validating = recipe.calibrate.batch, recipe.calibrate.samples // 8 * CALLS
    spent, budget = (sum(stage_passes(stages, batch, validating)) for stages in (own, theirs))
    assert abs(spent - budget) <= iteration_passes(own[0], batch)
    for control, stage in zip(own, theirs, strict=True):
        assert (control.horizon, control.inherited) == (1, False)
        assert (control.learned, control.window, control.schedule) == (stage.learned, stage.window, stage.schedule)
        assert validations(control) == validations(stage)
        assert control.iterations >= stage.iterations


@pytest.mark.parametrize("weight_bits", [8, 4])
@pytest.mark.parametrize("effort", get_args(Effort))
def test_every_stage_is_of_single_steps_at_equal_passes(effort: Effort, weight_bits: int) -> None:
    passes_differ_by_less_than_one_iteration(
        recipe_of(effort=effort, weight_bits=weight_bits, settling=40, group_iterations=5)
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"step_groups": 1, "group_iterations": 7},
        {"step_groups": 20, "group_iterations": 26},
        {"horizon": 2, "settling": 29, "start": "inherited"},
        {"horizon": 10, "iterations": 33, "gradient": "full"},
        {"horizon": 1, "settling": 11, "batch": 1},
    ],
)
def test_equal_passes_whatever_the_stages_are(settings: dict[str, Any]) -> None:
    passes_differ_by_less_than_one_iteration(recipe_of(**settings))


def test_stages_that_were_single_steps_stay_as_they_are() -> None:
    theirs, own = both(recipe_of(warmup=40, settling=60))
    assert [stage.name for stage in own] == [stage.name for stage in theirs]
    assert (own[0].iterations, own[0].horizon) == (theirs[0].iterations, theirs[0].horizon)
    assert own[1].iterations > theirs[1].iterations


def test_what_accuquant_records_of_its_stages_is_as_before() -> None:
    theirs, own = both(recipe_of(settling=60, group_iterations=5))
    assert all("interval" not in stage.to_json() for stage in theirs)
    assert all(stage.to_json()["interval"] == stage.interval for stage in own)


def test_rounding_comes_first_as_in_accuquant() -> None:
    asked: dict[str, dict[str, Any]] = {"run": {"offload": True}, "calibrate": {"warmup": 9}}
    assert phases_of((SINGLE,), effective(load_recipe(None, asked))) == (SECOND_ORDER, SINGLE)
    learned = load_recipe(None, asked | {"calibrate": {"warmup": 9, "rounding": "learned"}})
    assert phases_of((SINGLE,), effective(learned)) == (BLOCKS, SINGLE)


def test_a_comparison_of_both_runs_to_its_end(tiny_model: Path, tmp_path: Path) -> None:
    small_recipe = small(tiny_model, tmp_path, "accuquant")
    text = [
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for section, values in {
            "calibrate": {
                key: getattr(small_recipe.calibrate, key) for key in ("samples", "batch", "warmup", "settling")
            },
            "run": {"device": '"cpu"'},
        }.items()
    ]
    (tmp_path / "dq.toml").write_text("".join(text))
    request = Request(tmp_path / "dq.toml", tiny_model, tmp_path, "accuquant,single-step", steps="5", held_out=4)
    found = compare(request, GridReporter(quiet=True))
    (setting,) = found.settings
    rows = {row.cell.method: row for row in found.rows_of(setting)}
    assert set(rows) == {"accuquant", "single-step"}
    assert found.with_state("failed") == {}
    assert all(row.figures["psnr_median"] is not None for row in rows.values())
