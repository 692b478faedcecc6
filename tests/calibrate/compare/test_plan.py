"""What identifies a cell: the settings that its method reads, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from dq_toolchain.calibrate.compare.plan import Request, plan
from tests.calibrate.compare.fake import RECIPE

METHODS = "mse,qdiffusion,accuquant,accuquant-blocks"


def fingerprints(folder: Path, model: Path, recipe: str) -> dict[str, str]:
    (folder / "dq.toml").write_text(recipe)
    grid = plan(Request(folder / "dq.toml", model, folder / "out", METHODS, "W8A8", "3", 1, 5))
    return {cell.method: grid.fingerprints[cell] for cell in grid.cells}


@pytest.mark.parametrize(
    ("change", "readers"),
    [
        ("warmup = 7\n", {"accuquant"}),
        ("scale_lr = 0.01\n", {"accuquant-blocks"}),  # at 8 bits accuquant has no iterations that would read it
        ("[blocks]\niterations = 7\n", {"qdiffusion", "accuquant-blocks"}),
        ("[blocks]\nrows = 7\n", {"qdiffusion", "accuquant-blocks", "accuquant"}),  # of rounding in closed form
        ('ranges = "minmax"\n', {"accuquant", "accuquant-blocks"}),
        ("[sampler]\neta = 0.5\n", set(METHODS.split(","))),
        ("[run]\nseed = 0\n", set()),
    ],
)
def test_a_setting_changes_the_methods_that_read_it(
    change: str, readers: set[str], tmp_path: Path, tiny_model: Path
) -> None:
    recipe = RECIPE.replace('[run]\ndevice = "cpu"\n', "")
    before, after = fingerprints(tmp_path, tiny_model, recipe), fingerprints(tmp_path, tiny_model, recipe + change)
    assert {name for name in before if before[name] != after[name]} == readers


def test_a_recipe_for_all_leaves_each_method_what_it_is(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "dq.toml").write_text(RECIPE + 'ranges = "percentile"\nwarmup = 7\nrounding = "learned"\n')
    grid = plan(Request(tmp_path / "dq.toml", tiny_model, tmp_path, "minmax,accuquant,accuquant-blocks", "W8A8", "3"))
    recipes = {cell.method: recipe for cell, recipe in grid.recipes.items()}
    assert [(r.calibrate.ranges, r.quantize.step_groups, r.calibrate.warmup) for r in recipes.values()] == [
        ("minmax", 1, 7),
        ("percentile", 2, 7),
        ("percentile", 2, 0),
    ]
    assert [r.calibrate.rounding for r in recipes.values()] == ["nearest", "learned", "nearest"]
