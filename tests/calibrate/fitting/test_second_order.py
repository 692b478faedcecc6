"""Weights rounded in closed form before a fit: better than to nearest, fixed from then on, and not done twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dq_toolchain.calibrate.fitting import second_order
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests.calibrate.conftest import QUIET, tiny_recipe

NO_FIT = {"warmup": 0, "iterations": 0, "settling": 0, "group_iterations": 0}


def recipe_of(model: Path, out: Path, rounding: str, **calibrate: object) -> Recipe:
    return tiny_recipe(model, out, quantize={"weight_bits": 4}, calibrate={**NO_FIT, "rounding": rounding, **calibrate})


def output_error(artifact: Artifact, recipe: Recipe) -> float:
    """Mean squared error of the network's outputs on inputs that the calibration has not seen, with float activations."""
    context = setup(recipe)
    generator = torch.Generator().manual_seed(5)
    samples = context.draw(range(1000, 1016))
    x = torch.randn(samples.start.shape, generator=generator)
    with torch.no_grad():
        outputs = [
            context.denoiser(network, samples)(x, 1) for network in (artifact.build_float_unet(), context.network)
        ]
    return float((outputs[0] - outputs[1]).square().mean())


def test_outputs_are_nearer_than_with_the_nearest_integers(tiny_model: Path, tmp_path: Path) -> None:
    errors = {}
    for rounding in ("nearest", "closed-form"):
        recipe = recipe_of(tiny_model, tmp_path, rounding)
        errors[rounding] = output_error(calibrated(recipe, QUIET, tmp_path / rounding).artifact, recipe)
    assert errors["closed-form"] < 0.75 * errors["nearest"]


def test_a_fit_after_it_leaves_the_integers(tiny_model: Path, tmp_path: Path) -> None:
    before, after = (
        calibrated(
            recipe_of(tiny_model, tmp_path, "closed-form", warmup=count, batch=8), QUIET, tmp_path / "work"
        ).artifact
        for count in (0, 40)
    )
    assert [stage["stage"] for stage in after.record["stages"]] == ["closed-form rounding", "single-step warm-up"]
    assert not torch.equal(before.scale, after.scale)
    assert all(torch.equal(layer.weight_q, after.layers[name].weight_q) for name, layer in before.layers.items())


def test_what_is_rounded_is_not_rounded_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    recipe = recipe_of(tiny_model, tmp_path, "closed-form", warmup=2)
    straight = calibrated(recipe, QUIET, tmp_path / "other").artifact
    calibrated(recipe, QUIET, work)
    (fit,) = work.glob("fit-*.safetensors")
    fit.unlink()
    monkeypatch.setattr(second_order, "hessians_of", lambda *_: pytest.fail("rounded again"))
    again = calibrated(recipe, QUIET, work).artifact
    for name, layer in straight.layers.items():
        assert torch.equal(layer.weight_q, again.layers[name].weight_q)
        assert torch.equal(layer.weight_scale, again.layers[name].weight_scale)


def test_its_rows_and_constants_decide_the_result(tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_model, tmp_path, "closed-form", warmup=1)
    found = second_order.SECOND_ORDER.hyper_parameters(recipe, {}, ())
    assert found["rows"] == recipe.blocks.rows
    assert found["constants"]["blocks.second_order"]["DAMPING"] == 0.01
    assert found["constants"]["blocks.hessians"]["POSITIONS"] == 64


def test_rounding_is_learned_from_there(tiny_model: Path, tmp_path: Path) -> None:
    start, fixed, learned = (
        calibrated(
            recipe_of(tiny_model, tmp_path, rounding, warmup=count, batch=8, rounding_lr=1e-2),
            QUIET,
            tmp_path / rounding,
        ).artifact
        for rounding, count in (("closed-form+learned", 0), ("closed-form", 0), ("closed-form+learned", 40))
    )
    changed = 0
    for name, layer in fixed.layers.items():
        assert torch.equal(layer.weight_q, start.layers[name].weight_q)
        moved = (layer.weight_q.int() - learned.layers[name].weight_q.int()).abs()
        assert moved.max() <= 1
        changed += int(moved.sum())
    assert changed > 0
