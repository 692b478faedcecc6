"""The whole calibration on a tiny model: artifact, simulation, settings, and what a recipe must say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.calibrate import run
from dq_toolchain.calibrate.data.conditioning import conditioning_bank
from dq_toolchain.calibrate.parts import make
from dq_toolchain.calibrate.parts.text import NotExported
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.errors import ArtifactError, RecipeError
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.models.loading import Model, load_model
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.quant.layers import float_parameters
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests import tiny_pipelines
from tests.calibrate.conftest import QUIET, tiny_recipe
from tests.tiny import noise, tiny_condition_unet, write_tiny_model

Made = tuple[Path, Artifact, Reference]


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The tiny recipe with 4-bit weights, where a fit gains whatever samples it draws, calibrated once."""
    out = tmp_path_factory.mktemp("made")
    return calibrate(tiny_recipe(tiny_model, out, quantize={"weight_bits": 4}), QUIET)


def test_artifact_loads_bit_equal_and_holds_every_site(made: Made) -> None:
    folder, artifact, reference = made
    loaded, again = Artifact.load(folder), load_reference(folder)
    assert torch.equal(loaded.scale, artifact.scale)
    assert torch.equal(loaded.zero_point, artifact.zero_point)
    for name, layer in artifact.layers.items():
        assert torch.equal(loaded.layers[name].weight_q, layer.weight_q)
        assert torch.equal(loaded.layers[name].weight_scale, layer.weight_scale)
    assert torch.equal(again.simulation_latents, reference.simulation_latents)
    assert loaded.table == artifact.table
    assert [s.weight_bits for s in loaded.sites if s.kind != "attention"].count(None) == 0
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith("calib")] == ["calibration"]


def test_learned_biases_and_nothing_else_in_float_change(made: Made, tiny_model: Path, tmp_path: Path) -> None:
    artifact = made[1]
    before = float_parameters(setup(tiny_recipe(tiny_model, tmp_path)).prepared.network, artifact.layers)
    assert set(artifact.float_parameters) == set(before)
    changed = {name for name, value in artifact.float_parameters.items() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= {f"{name}.bias" for name in artifact.layers}


@pytest.mark.parametrize(
    "sections",
    [
        {"sampler": {"steps": 4, "guidance": 2.0}},
        {"quantize": {"step_groups": 4, "scheme": "affine", "attention": "int8"}},
        {"quantize": {"step_groups": 1, "weight_bits": 4, "split": False}},
        {"calibrate": {"start": "inherited", "gradient": "surrogate"}},
        {"calibrate": {"rounding": "nearest", "ranges": "percentile"}},
        {"calibrate": {"gradient": "full", "ranges": "minmax"}},
    ],
)
def test_every_setting_gives_a_simulation_near_fp32(
    sections: dict[str, dict[str, object]], tiny_model: Path, tmp_path: Path
) -> None:
    fast = {"warmup": 2, "iterations": 2, "settling": 2, "group_iterations": 1} | sections.get("calibrate", {})
    _, _artifact, reference = calibrate(tiny_recipe(tiny_model, tmp_path, **{**sections, "calibrate": fast}), QUIET)
    error = (reference.simulation_latents[-1] - reference.fp32_latents[-1]).norm() / reference.fp32_latents[-1].norm()
    assert 1e-5 < error < 0.2


def test_conditional_unet_from_a_conditioning_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = write_tiny_model(tmp_path / "model", tiny_condition_unet())
    with pytest.raises(RecipeError, match="encoder_hidden_states"):
        calibrate(tiny_recipe(model, tmp_path / "out"), QUIET)
    states = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    save_file(
        {"cond.encoder_hidden_states": states, "uncond.encoder_hidden_states": states * 0},
        tmp_path / "text.safetensors",
    )
    _, artifact, reference = calibrate(
        tiny_recipe(
            model,
            tmp_path / "out",
            conditioning={"file": tmp_path / "text.safetensors"},
            sampler={"steps": 4, "guidance": 3.0},
        ),
        QUIET,
    )
    assert any("attn2.to_k" in site.layer for site in artifact.sites)
    assert reference.conditioning.uncond["encoder_hidden_states"].shape == (2, 5, 8)


def test_held_out_samples_are_the_same_for_every_calibration_seed(made: Made, tiny_model: Path, tmp_path: Path) -> None:
    _, artifact, other = calibrate(tiny_recipe(tiny_model, tmp_path, run={"out": tmp_path, "seed": 1}), QUIET)
    assert (made[1].record["seeds"]["calibration"], artifact.record["seeds"]["calibration"]) == (0, 1)
    assert torch.equal(made[2].start, other.start)
    assert not torch.equal(made[2].simulation_latents[-1], other.simulation_latents[-1])


@pytest.mark.slow
def test_fitting_lowers_the_error_of_four_bit_weights(tiny_model: Path, tmp_path: Path) -> None:
    errors = {}
    for name, iterations in (("ranges", 0), ("fitted", 20)):
        settings = {
            "samples": 32,
            "batch": 6,
            "rounding": "learned" if iterations else "nearest",
            "warmup": 2 * iterations,
            "iterations": iterations,
            "settling": iterations,
            "group_iterations": 0,
            "horizon": 4,
            "scale_lr": 2e-3,
            "rounding_lr": 1e-2,
        }
        _, _, reference = calibrate(
            tiny_recipe(
                tiny_model,
                tmp_path / name,
                calibrate=settings,
                reference={"seeds": 32},
                quantize={"weight_bits": 4, "step_groups": 2},
            ),
            QUIET,
        )
        errors[name] = float((reference.simulation_latents[-1] - reference.fp32_latents[-1]).square().mean())
    assert errors["fitted"] < 0.7 * errors["ranges"]


def test_guidance_without_a_null_label_is_refused(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    (model / "dq.toml").unlink()
    with pytest.raises(RecipeError, match="null_label"):
        setup(load_recipe(None, {"model": {"path": model}, "sampler": {"guidance": 2.0}}))


def test_the_prepared_network_is_the_fp32_network(tiny_model: Path, tmp_path: Path) -> None:
    context = setup(tiny_recipe(tiny_model, tmp_path))
    assert context.prepared.splits
    x, time_, label = noise(2), torch.tensor([500.0, 100.0]), torch.tensor([1, 2])
    with torch.no_grad():
        split, whole = (net(x, time_, label).sample for net in (context.prepared.network, context.model.network))
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-5)


def pipeline_settings(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        "model": {"path": tiny_pipelines.save_sd(folder / "model")},
        "run": {"out": folder / "out", "device": "cpu"},
        "sampler": {"steps": 2},
        "quantize": {"step_groups": 1},
        "calibrate": {"method": "mse", "effort": "quick"},
        "reference": {"seeds": 2},
    }


def test_an_artifact_whose_parts_were_not_written_yet_is_not_taken_for_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill behind the artifact and before its parts; the same command goes on and writes them."""
    recipe = load_recipe(None, pipeline_settings(tmp_path))

    def killed(*_given: object, **_named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_parts", killed)
        with pytest.raises(KeyboardInterrupt):
            calibrate(recipe, QUIET)
    folder = tmp_path / "out" / run.FOLDER
    with pytest.raises(
        ArtifactError, match="`calibrate` was stopped before it wrote text encoders and decoder; run the"
    ):
        PartsArtifact.load(folder)
    calibrate(recipe, QUIET)
    assert PartsArtifact.load(folder) is not None


def test_parts_that_cannot_be_exported_are_none_and_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_given: object, **_named: object) -> None:
        raise NotExported("its decoder is of another kind")

    monkeypatch.setattr(make, "_parts", refused)
    folder, artifact, _ = calibrate(load_recipe(None, pipeline_settings(tmp_path)), QUIET)
    assert artifact.record["parts"] is True
    assert PartsArtifact.load(folder) is None


def test_the_parts_name_the_prompts_that_held_out_samples_have(tmp_path: Path) -> None:
    """Behind those of the calibration samples, whose number effort and bits decide where the user does not."""
    settings = pipeline_settings(tmp_path)
    folder, artifact, reference = calibrate(load_recipe(None, settings), QUIET)
    assert artifact.record["recipe"]["calibrate"]["samples"] != Recipe().calibrate.samples
    parts = PartsArtifact.load(folder)
    assert parts is not None
    drawn = tmp_path / "drawn.txt"
    drawn.write_text("\n".join(parts.reference.drawn))
    again = load_recipe(None, settings | {"conditioning": {"prompts": drawn}})
    bank = conditioning_bank(load_model(tmp_path / "model"), again)
    name = "encoder_hidden_states"
    torch.testing.assert_close(bank.cond[name], reference.conditioning.cond[name])


@pytest.mark.parametrize("is_given", [False, True], ids=["from-files", "in-memory"])
def test_the_network_is_released_before_the_parts_are_made(
    is_given: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller's own stays; the artifact keeps what it took of the weights."""
    seen: list[set[str]] = []

    def note(model: Model, *_rest: object, **_named: object) -> None:
        seen.append({parameter.device.type for parameter in model.network.parameters()})

    monkeypatch.setattr(run, "write_parts", note)
    recipe = tiny_recipe(tiny_model, tmp_path, calibrate={"method": "mse"})
    given = load_model(str(tiny_model)) if is_given else None
    _, artifact, _ = calibrate(recipe, QUIET, given)
    assert seen == [{"cpu" if is_given else "meta"}]
    assert all(tensor.device.type == "cpu" for tensor in artifact.float_parameters.values())
