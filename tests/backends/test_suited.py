"""`calibrate --target`: what nobody set is as the target takes it, and what it does not take is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dq_toolchain import backends
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.errors import RecipeError, ToolchainError
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests.tiny import small_unet, write_tiny_model

FORMS = [(name, form) for name in backends.names() for form in backends.describe(name).forms]


def _recipe(target: str | None, **quantize: Any) -> Recipe:
    return load_recipe(None, {"quantize": quantize, "export": {"target": target}}, sections=backends.sections())


@pytest.mark.parametrize(("target", "form"), FORMS)
def test_a_form_is_of_settings_that_exist_and_keep_to_what_the_target_holds(
    target: str, form: dict[str, tuple[Any, ...]]
) -> None:
    info = backends.describe(target)
    for key, values in form.items():
        assert values
        for value in values:
            assert getattr(_recipe(None, **{key: value}).quantize, key) == value
    assert set(form["activation_bits"]) <= set(info.activation_bits)
    assert set(form["scheme"]) <= set(info.schemes)


@pytest.mark.parametrize("target", backends.names())
def test_without_settings_the_first_form_is_taken_and_stays(target: str) -> None:
    recipe, taken = backends.suited(_recipe(target))
    form = backends.describe(target).forms[0]
    assert all(getattr(recipe.quantize, key) == values[0] for key, values in form.items())
    assert all(getattr(Recipe().quantize, key) != value for key, value in taken.items())
    assert backends.suited(recipe) == (recipe, {})


def test_without_a_target_nothing_changes() -> None:
    recipe = _recipe(None)
    assert backends.suited(recipe) == (recipe, {})


def test_what_was_set_stays_and_decides_the_form() -> None:
    recipe, taken = backends.suited(_recipe("qnn", activation_bits=8))
    assert taken == {"outputs": "fitted", "step_vectors": True}
    assert recipe.quantize.activation_bits == 8
    recipe, taken = backends.suited(_recipe("executorch", scheme="symmetric"))
    assert (recipe.quantize.scheme, taken) == ("symmetric", {})


REFUSED = [
    (
        "tensorrt",
        {"scheme": "affine"},
        "target 'tensorrt': got scheme affine, allowed are activation_bits 8, scheme symmetric",
    ),
    ("coreml", {"activation_bits": 16}, "got activation_bits 16, allowed are activation_bits 8"),
    (
        "qnn",
        {"outputs": "none"},
        "allowed are activation_bits 16, outputs range, .*; or activation_bits 8, outputs fitted",
    ),
    ("executorch", {"attention": "int8"}, "got attention int8, allowed are .*attention float"),
]


@pytest.mark.parametrize(("target", "quantize", "said"), REFUSED)
def test_what_a_target_does_not_take_is_refused(target: str, quantize: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        backends.suited(_recipe(target, **quantize))


def test_the_command_refuses_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run_command(["calibrate", "--target", "tensorrt", "--scheme", "affine", "--out", str(out)]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: target 'tensorrt': got scheme affine")
    assert run_command(["calibrate", "--target", "abacus", "--out", str(out)]) == 2
    assert not out.exists()


@pytest.mark.parametrize("target", backends.names())
def test_the_recipe_command_prints_what_calibrate_takes(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["recipe"]) == 0
    assert 'scheme = "symmetric"' in capsys.readouterr().out  # the target that it fills in was not asked for
    assert run_command(["recipe", "--target", target]) == 0
    said = capsys.readouterr().out
    recipe, _ = backends.suited(_recipe(target))
    assert f'scheme = "{recipe.quantize.scheme}"' in said
    assert f"activation_bits = {recipe.quantize.activation_bits}" in said
    assert f'target = "{target}"' in said


@pytest.mark.parametrize("target", backends.names())
def test_what_is_calibrated_for_a_target_is_what_it_exports(target: str, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", small_unet())
    try:
        backends.load(target)
    except ToolchainError:
        pytest.skip(f"the library of {target} is not installed")
    calibrate = [
        "calibrate",
        "--target",
        target,
        "--model",
        str(model),
        "--effort",
        "quick",
        "--warmup",
        "1",
        "--samples",
        "4",
    ]
    assert run_command([*calibrate, "--steps", "2", "--rounding", "nearest", "--out", str(tmp_path)]) == 0
    assert (
        run_command(
            ["export", "--target", target, "--calibration", str(tmp_path / "calibration"), "--out", str(tmp_path)]
        )
        == 0
    )
    assert (tmp_path / target / "bundle.json").is_file()
