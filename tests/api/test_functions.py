"""Settings, callbacks, results and refusals of the API; it ends no process, prints nothing, and runs inside an event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, StableDiffusionPipeline
from safetensors.torch import load_file

import dq_toolchain as dq
from dq_toolchain.api.results import Calibration
from dq_toolchain.api.settings import calibration_recipe
from dq_toolchain.calibrate.work.workers import Workers
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests import modules, tiny
from tests.api.conftest import FAST, SEEDS, calibrated_wave
from tests.tiny_pipelines import PROMPTS, pixart, save_sd, save_transformer

MASK = "encoder_attention_mask"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_tiny_model(tmp_path_factory.mktemp("model"))


def test_settings_are_called_as_flags_and_go_where_these_go() -> None:
    recipe = calibration_recipe(
        {"quantize": {"weight_bits": 4}, "calibrate": {"steps": "growth"}, "blocks": {"iterations": 9}},
        {"steps": 7, "iterations": 3, "weight_bits": 5, "seed": 2},
        {"run": {"out": Path("there")}},
    )
    assert (recipe.sampler.steps, recipe.calibrate.steps) == (7, "growth")
    assert (recipe.calibrate.iterations, recipe.blocks.iterations) == (3, 9)
    assert (recipe.quantize.weight_bits, recipe.run.seed, recipe.run.out) == (5, 2, Path("there"))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"wieght_bits": 4}, "unknown setting: wieght_bits; allowed are .*weight_bits"),
        ({"weight_bits": 9}, "weight-bits: got 9"),
        ({"recipe": {"quantise": {"weight_bits": 4}}}, "quantise: unknown, allowed: .*quantize"),
        ({"recipe": {"quantize": 4}}, "quantize is '4', allowed is a table"),
    ],
)
def test_a_mistake_in_settings_is_an_exception_of_one_line(settings: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(dq.errors.RecipeError, match=text) as caught:
        dq.calibrate(out=tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_a_folder_is_calibrated_as_the_command_does(model: Path, tmp_path: Path) -> None:
    found = dq.calibrate(model, out=tmp_path, recipe={"reference": {"seeds": 2}}, **FAST, method="mse")
    assert found.folder == tmp_path / "calibration"
    assert any("[reference] seeds is 2" in note for note in found.notes)
    assert found.reference.seeds == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.folder = tmp_path  # type: ignore[misc]


def test_a_pipeline_in_memory_gives_the_artifact_of_its_folder(model: Path, tmp_path: Path) -> None:
    pipeline = DDPMPipeline(unet=tiny.tiny_unet().double(), scheduler=tiny.scheduler())
    options: dict[str, Any] = {
        "recipe": {"conditioning": {"null_label": 10}, "reference": {"seeds": 2}},
        **FAST,
        "method": "mse",
    }
    of_folder = dq.calibrate(model, out=tmp_path / "folder", **options).artifact
    of_pipeline = dq.calibrate(pipeline, out=tmp_path / "pipeline", **options).artifact
    assert torch.equal(of_folder.scale, of_pipeline.scale)
    assert all(torch.equal(of_folder.layers[n].weight_q, layer.weight_q) for n, layer in of_pipeline.layers.items())
    assert of_folder.table == of_pipeline.table
    assert next(pipeline.unet.parameters()).dtype == torch.float64
    of_pipeline.check(tmp_path)  # its config builds the network again, without the pipeline


def test_a_mask_may_be_bool_or_numbers_when_given_as_a_tensor_too(tmp_path: Path) -> None:
    folder = save_transformer(pixart(), tmp_path / "model")
    stored = load_file(folder / "conditioning.safetensors")
    sides = {
        side: {name.split(".")[1]: rows for name, rows in stored.items() if name.startswith(f"{side}.")}
        for side in ("cond", "uncond")
    }
    made = []
    for kind in (torch.float32, torch.bool, torch.uint8):
        given = [{**rows, MASK: rows[MASK].to(kind)} for rows in (sides["cond"], sides["uncond"])]
        made.append(
            dq.calibrate(
                folder,
                out=tmp_path / str(kind),
                conditioning=given[0],
                unconditional=given[1],
                method="minmax",
                steps=2,
                samples=2,
                device="cpu",
                guidance=2.0,
            )
        )
    same = made[0].reference.fp32_latents
    assert made[0].reference.conditioning.cond[MASK].dtype == torch.float32
    assert all(torch.equal(each.reference.fp32_latents, same) for each in made)
    assert all(torch.equal(each.artifact.scale, made[0].artifact.scale) for each in made)
    wrong = {**sides["cond"], MASK: sides["cond"][MASK] * 2}
    with pytest.raises(dq.errors.ToolchainError, match="bool or integers 0 and 1"):
        dq.calibrate(
            folder, out=tmp_path / "wrong", conditioning={**wrong, MASK: wrong[MASK].long()}, steps=2, device="cpu"
        )


def test_prompts_go_through_the_encoders_of_a_pipeline_in_memory(tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "sd")
    options: dict[str, Any] = {
        "recipe": {"reference": {"seeds": 2}},
        "prompts": list(PROMPTS),
        "guidance": 2.0,
        **FAST,
        "method": "mse",
    }
    of_folder = dq.calibrate(folder, out=tmp_path / "folder", **options)
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    of_pipeline = dq.calibrate(pipeline, out=tmp_path / "pipeline", **options)
    states = [found.reference.conditioning.cond["encoder_hidden_states"] for found in (of_folder, of_pipeline)]
    assert torch.equal(*states)
    assert torch.equal(of_folder.artifact.scale, of_pipeline.artifact.scale)


def test_adapters_that_are_not_merged_are_refused(tmp_path: Path) -> None:
    pipeline = DDPMPipeline(unet=tiny.tiny_unet(), scheduler=tiny.scheduler())
    pipeline.unet.add_module("adapter", torch.nn.Linear(2, 2))
    with pytest.raises(dq.errors.ModelError, match=r"does not describe 'adapter\.bias'.*merge adapters first"):
        dq.calibrate(pipeline, out=tmp_path, **FAST)


def test_progress_is_told_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[str, int, int]] = []
    before = signal.getsignal(signal.SIGINT)

    async def cell() -> Calibration:
        return calibrated_wave(tmp_path, progress=lambda *told: calls.append(told))

    asyncio.run(cell())
    titles = list(dict.fromkeys(title for title, _, _ in calls))
    assert titles == ["FP32 rollouts", "rounding weights", "fitting", "held-out rollouts"]
    assert all(0 <= done <= total for _, done, total in calls)
    last = {title: (done, total) for title, done, total in calls}
    assert all(done == total for done, total in last.values())
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGINT) is before


def test_an_exception_of_a_callback_ends_the_work_and_the_next_call_continues(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(title: str, _done: int, _total: int) -> None:
        if title == "held-out rollouts":
            raise Stop

    with pytest.raises(Stop):
        calibrated_wave(tmp_path, progress=stop)
    assert not (tmp_path / "calibration").exists()
    titles: list[str] = []
    calibrated_wave(tmp_path, progress=lambda title, _done, _total: titles.append(title))
    assert "FP32 rollouts" not in titles


def test_another_process_of_a_launch_returns_and_does_not_exit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Second(Workers):
        """As one of two, which has the numbers of both."""

        is_first = False  # type: ignore[assignment]

    from dq_toolchain.calibrate import run

    monkeypatch.setattr(run, "workers_of", lambda _recipe: Second())
    found = calibrated_wave(tmp_path)
    assert found.held_out is None
    assert not found.folder.exists()
    with pytest.raises(dq.errors.CalibrationError, match="the first process of this launch writes"):
        _ = found.reference


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"model": 3}, dq.errors.ModelError, "got int, allowed are a path, a hub id, a diffusers pipeline and a torch"),
        ({"scheduler": None}, dq.errors.SamplerError, "Wave comes without its sampler; give scheduler"),
        ({"scheduler": 5}, dq.errors.SamplerError, "got int, allowed are schedulers of diffusers"),
        ({"sample_shape": None}, dq.errors.ModelError, "give sample_shape"),
        ({"sample_shape": (2,)}, dq.errors.ModelError, r"got \(2,\), allowed are channels and at least one more axis"),
        (
            {"sample_shape": (3, 16)},
            dq.errors.ModelError,
            "cannot be called with a latent of shape .*check sample_shape",
        ),
        ({"conditioning": {"wrods": torch.ones(2, 3)}}, dq.errors.ModelError, "wrods"),
        ({"conditioning": {"words": [1, 2]}}, dq.errors.RecipeError, "got list, allowed are floats or integers"),
        ({"guidance": 3.0}, dq.errors.RecipeError, "uncond"),
        ({"prompts": ["a cat"], "conditioning": None}, dq.errors.RecipeError, "takes no text"),
        ({"lora_scale": 0.5}, dq.errors.RecipeError, "lora_scale: for models that are read from files, got a Wave"),
        (
            {"recipe": {"model": {"lora": "x.safetensors", "scheduler": "."}}},
            dq.errors.RecipeError,
            "lora, scheduler: for models that are read from files, got a Wave",
        ),
    ],
)
def test_what_does_not_fit_a_module_is_refused_before_work(
    arguments: dict[str, Any], error: type[dq.DqError], text: str, tmp_path: Path
) -> None:
    fine = {
        "model": modules.wave(),
        "scheduler": tiny.scheduler(),
        "sample_shape": (2, 16),
        "conditioning": modules.words(),
        "progress": lambda *_: pytest.fail("work was begun"),
    }
    with pytest.raises(error, match=text) as caught:
        dq.calibrate(**{**fine, **FAST, **arguments}, out=tmp_path)
    assert "\n" not in str(caught.value)


def test_guidance_of_a_module(tmp_path: Path) -> None:
    rows = modules.words()
    found = calibrated_wave(tmp_path, guidance=2.0, unconditional={"words": torch.zeros(1, modules.WORDS)})
    assert found.artifact.guidance == 2.0
    assert torch.equal(found.reference.conditioning.uncond["words"], torch.zeros(10, modules.WORDS))
    assert torch.equal(found.reference.conditioning.cond["words"][:5], rows["words"])


def test_blocks_are_reconstructed_layer_by_layer_in_a_module(tmp_path: Path) -> None:
    found = calibrated_wave(
        tmp_path, method="qdiffusion", recipe={**SEEDS, "blocks": {"rows": 16, "batch": 8, "iterations": 2}}
    )
    assert found.artifact.record["method"]
    assert found.reference.seeds == 10


@pytest.mark.parametrize(("out", "wanted"), [(None, "of the recipe"), ("own", "own")])
def test_the_folder_is_that_of_the_recipe_unless_one_is_given(
    out: str | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def note(recipe: Recipe, *_rest: object) -> dq.Calibration:
        seen.append(recipe.run.out)
        raise dq.errors.CalibrationError("enough")

    monkeypatch.setattr("dq_toolchain.api.calibration.calibrated", note)
    with pytest.raises(dq.errors.CalibrationError, match="enough"):
        dq.calibrate(out=out, recipe={"run": {"out": "of the recipe"}})
    assert seen == [Path(wanted)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"target": "toaster"}, "target must be one of"),
        ({"recipe": {"export": {"target": "toaster"}}}, "target must be one of"),
        ({"target": "tensorrt", "ios": 18}, "unknown setting of target 'tensorrt': ios; allowed are .*step_groups"),
        ({"target": "tensorrt", "module": modules.wave()}, "which has it; leave it out"),
    ],
)
def test_exports_that_cannot_be_are_refused(wave: dq.Calibration, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(dq.DqError, match=text):
        dq.export(wave, **arguments)


def test_run_and_validate_take_paths_and_results(wave_bundle: dq.Bundle, tmp_path: Path) -> None:
    done: list[tuple[str, int, int]] = []
    report = dq.run(str(wave_bundle.folder), out=tmp_path / "report", seeds=2, progress=lambda *told: done.append(told))
    assert report.path == tmp_path / "report" / "report.json"
    assert done[-1][1] == done[-1][2]
    verdict = dq.validate(report.path, bundle=wave_bundle, html=tmp_path / "page.html")
    assert verdict.outcome == dq.validate(report).outcome == "not decided"
    assert not verdict.passed
    assert "<html" in (tmp_path / "page.html").read_text()


def test_an_artifact_that_was_calibrated_on_its_held_out_samples_is_named(wave: dq.Calibration, tmp_path: Path) -> None:
    def notes(**seeds: int) -> list[str]:
        older = replace(wave.artifact, record={**wave.artifact.record, "seeds": seeds})
        bundle = dq.export(replace(wave, artifact=older), "tensorrt", out=tmp_path / "tensorrt")
        return [note for note in bundle.notes if "calibrate again" in note]

    assert wave.artifact.record["seeds"]["first_sample"] == 2**20
    assert notes(**wave.artifact.record["seeds"]) == []
    assert notes(calibration=1, held_out=16) == []
    assert len(notes(calibration=0, held_out=16)) == 1
