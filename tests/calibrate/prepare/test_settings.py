"""Which settings decide a calibration, and that those which nothing reads are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.prepare.settings import deciding, unread
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.loading import load_recipe
from tests.calibrate.conftest import tiny_recipe


@pytest.mark.parametrize(
    ("method", "changes", "decides"),
    [
        ("accuquant", {"calibrate": {"iterations": 9}}, True),
        ("accuquant", {"blocks": {"iterations": 9}}, False),
        ("qdiffusion", {"blocks": {"iterations": 9}}, True),
        ("qdiffusion", {"calibrate": {"iterations": 9}}, False),
        ("mse", {"calibrate": {"iterations": 9}}, False),
        ("mse", {"calibrate": {"samples": 9}}, True),
        ("mse", {"quantize": {"weight_bits": 4}}, True),
        ("mse", {"run": {"out": Path("elsewhere")}}, False),
        ("mse", {"reference": {"seeds": 9}}, False),
    ],
)
def test_a_setting_decides_where_the_method_reads_it(
    method: str, changes: dict[str, dict[str, object]], decides: bool, tiny_model: Path, tmp_path: Path
) -> None:
    plain = deciding(tiny_recipe(tiny_model, tmp_path), resolve(method))
    changed = deciding(tiny_recipe(tiny_model, tmp_path, **changes), resolve(method))
    assert (plain != changed) is decides


@pytest.mark.parametrize(
    ("sections", "settings"),
    [
        ({"calibrate": {"scale_lr": 0.5}}, "[calibrate] scale_lr = 0.5"),
        ({"calibrate": {"horizon": 8, "batch": 2}}, "[calibrate] batch = 2, [calibrate] horizon = 8"),
        (
            {"calibrate": {"steps": "growth"}, "blocks": {"iterations": 9}},
            "[calibrate] steps = growth, [blocks] iterations = 9",
        ),
    ],
)
def test_what_a_fit_without_iterations_does_not_read_is_named(sections: dict[str, Any], settings: str) -> None:
    said = unread(load_recipe(None, sections))
    assert said.startswith(f"no effect of {settings}: ")
    assert "(--warmup)" in said
    fitted = {**sections, "calibrate": {**sections["calibrate"], "warmup": 9}}
    assert unread(load_recipe(None, fitted)) == (
        "no effect of [blocks] iterations = 9: accuquant does not read it here" if "blocks" in sections else ""
    )


def test_what_a_method_does_not_read_is_named_with_the_method() -> None:
    given: dict[str, dict[str, Any]] = {
        "calibrate": {"method": "qdiffusion", "warmup": 300},
        "blocks": {"iterations": 9},
    }
    said = "no effect of [calibrate] warmup = 300: qdiffusion does not read it here"
    assert unread(load_recipe(None, given)) == said


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"calibrate": {"effort": "best", "samples": 9, "ranges": "minmax"}, "blocks": {"rows": 9}},
        {"calibrate": {"rounding": "nearest"}},
        {"calibrate": {"warmup": 0, "iterations": 0, "settling": 0}},
        {"quantize": {"weight_bits": 4}, "calibrate": {"scale_lr": 0.5, "batch": 2}},
        {"calibrate": {"method": "accuquant-blocks"}},
    ],
)
def test_nothing_is_said_of_what_is_read(sections: dict[str, Any]) -> None:
    assert unread(load_recipe(None, sections)) == ""


@pytest.mark.parametrize("rounding", ["learned", "closed-form+learned"])
def test_rounding_that_nothing_would_learn_is_refused(rounding: str) -> None:
    asked: dict[str, dict[str, Any]] = {"calibrate": {"rounding": rounding}}
    with pytest.raises(RecipeError, match=r"got '.*learned', which learns over iterations.*\(--warmup\)"):
        unread(load_recipe(None, asked))
    for more in ("warmup", 9), ("effort", "best"):
        assert unread(load_recipe(None, {"calibrate": {"rounding": rounding, more[0]: more[1]}})) == ""
    assert unread(load_recipe(None, {**asked, "quantize": {"weight_bits": 4}})) == ""
