"""Weights rounded in closed form before a fit: better than to nearest, fixed from then on, and not done twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.blocks.guided_hessians import guided_hessians_of
from dq_toolchain.calibrate.blocks.second_order import MARGIN
from dq_toolchain.calibrate.fitting import second_order
from dq_toolchain.calibrate.fitting.phase import Work
from dq_toolchain.calibrate.fitting.rows import drawn_rows
from dq_toolchain.calibrate.fitting.second_order import SECOND_ORDER
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.network.straight_through import per_channel
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests.calibrate.conftest import QUIET, measured, tiny_recipe

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
        recipe = recipe_of(tiny_model, tmp_path, rounding, samples=16)
        errors[rounding] = output_error(calibrated(recipe, QUIET, tmp_path / rounding).artifact, recipe)
    assert errors["closed-form"] < 0.75 * errors["nearest"]


def rounded(model: Path, out: Path, rounding: str) -> QuantizedNetwork:
    """The network that the phase leaves."""
    given = measured(model, out, quantize={"weight_bits": 4}, calibrate={"rounding": rounding})
    network = quantize_with(given.context, given.scale, given.zero_point, given.recipe)
    SECOND_ORDER.run(
        Work(
            recipe=given.recipe, network=network, trajectories=given.trajectories, chosen=None, block_options={},
            checkpoint=CheckpointFile(out / "work.safetensors", rounding), reporter=QUIET,
        )
    )  # fmt: skip
    return network


def test_integers_are_fixed_or_where_learning_begins(tiny_model: Path, tmp_path: Path) -> None:
    fixed, start = (rounded(tiny_model, tmp_path, each) for each in ("closed-form", "closed-form+learned"))
    moved = 0
    for name, layer in fixed.layers.items():
        quantizer, learned = layer.weight_quantizer, start.layers[name].weight_quantizer
        integers = quantizer.export()[0]
        assert quantizer.offset is None
        assert torch.equal(learned.export()[0], integers)
        assert learned.offset is not None
        assert not learned.offset.any()
        # a learned offset reaches the integers on either side, and no less than a quarter of a step flips one
        assert ((learned.ratio - integers).abs() <= MARGIN + 1e-4).all()
        moved += int(
            (
                integers != (layer.weight_quantizer.weight / per_channel(quantizer.searched, quantizer.weight)).round()
            ).sum()
        )
    assert moved > 0


def test_integers_that_a_phase_before_has_chosen_stay(tiny_model: Path, tmp_path: Path) -> None:
    """``accuquant-blocks`` with rounding in closed form asked for: blocks come first, and nothing is summed for naught."""
    network = rounded(tiny_model, tmp_path, "closed-form")
    given = measured(tiny_model, tmp_path, quantize={"weight_bits": 4}, calibrate={"rounding": "closed-form"})
    before = {name: layer.weight_quantizer.chosen for name, layer in network.layers.items()}
    work = Work(
        recipe=given.recipe, network=network, trajectories=given.trajectories, chosen=None, block_options={},
        checkpoint=CheckpointFile(tmp_path / "again.safetensors", ""), reporter=QUIET,
    )  # fmt: skip
    assert SECOND_ORDER.run(work).stages == []
    assert all(layer.weight_quantizer.chosen is before[name] for name, layer in network.layers.items())


def test_a_layer_with_inputs_that_are_not_finite_is_named(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(*given: Any) -> dict[str, list[Tensor]]:
        found = guided_hessians_of(*given)
        found["mid_block.resnets.0.conv1"][0][0, 0, 0] = torch.inf
        return found

    monkeypatch.setattr(second_order, "guided_hessians_of", spoilt)
    with pytest.raises(CalibrationError, match=r"mid_block\.resnets\.0\.conv1 has inputs that are NaN, .* keep_float"):
        rounded(tiny_model, tmp_path, "closed-form")


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_its_rows_are_counted(guidance: float, tiny_model: Path, tmp_path: Path) -> None:
    given = measured(tiny_model, tmp_path, sampler={"guidance": guidance}, blocks={"rows": 16})
    network = quantize_with(given.context, given.scale, given.zero_point, given.recipe)
    rows = drawn_rows(
        Work(
            recipe=given.recipe, network=network, trajectories=given.trajectories, chosen=None, block_options={},
            checkpoint=CheckpointFile(tmp_path / "work.safetensors", ""), reporter=QUIET,
        )
    )  # fmt: skip
    needs = SECOND_ORDER.needs(given.context, given.recipe, ActivationMemory(0, 0, 0))
    assert needs.host == rows.sample.nbytes == 16 * given.context.samples.start[0].nbytes


def test_the_fit_after_it_is_recorded_after_it(tiny_model: Path, tmp_path: Path) -> None:
    made = calibrated(recipe_of(tiny_model, tmp_path, "closed-form", warmup=2), QUIET, tmp_path / "work").artifact
    assert [stage["stage"] for stage in made.record["stages"]] == ["closed-form rounding", "single-step warm-up"]


def test_what_is_rounded_is_not_rounded_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    recipe = recipe_of(tiny_model, tmp_path, "closed-form", warmup=2)
    straight = calibrated(recipe, QUIET, tmp_path / "other").artifact
    calibrated(recipe, QUIET, work)
    (fit,) = work.glob("fit-*.safetensors")
    fit.unlink()
    monkeypatch.setattr(second_order, "guided_hessians_of", lambda *_: pytest.fail("rounded again"))
    again = calibrated(recipe, QUIET, work).artifact
    for name, layer in straight.layers.items():
        assert torch.equal(layer.weight_q, again.layers[name].weight_q)
        assert torch.equal(layer.weight_scale, again.layers[name].weight_scale)


def test_offloaded_weights_are_rounded_without_a_pass_back(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        second_order, "guided_hessians_of", lambda *_: pytest.fail("activations of a pass with gradient")
    )
    recipe = tiny_recipe(
        tiny_model,
        tmp_path,
        quantize={"weight_bits": 4},
        calibrate={**NO_FIT, "rounding": "closed-form"},
        run={"offload": True},
    )
    made = calibrated(recipe, QUIET, tmp_path / "work").artifact
    assert [stage["stage"] for stage in made.record["stages"]] == ["closed-form rounding"]


def test_its_rows_and_constants_decide_the_result(tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_model, tmp_path, "closed-form", warmup=1)
    found = SECOND_ORDER.hyper_parameters(recipe, {}, ())
    assert found["rows"] == recipe.blocks.rows
    assert found["constants"]["blocks.second_order.DAMPING"] == 0.01
    assert found["constants"]["blocks.hessians.POSITIONS"] == 64
