"""The sampler is the one that diffusers' pipeline of the folder runs with, and whatever differs from the files is said."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.models.source import Source
from dq_toolchain.toolchain.sampler.diffusers_scheduler import load_scheduler
from dq_toolchain.toolchain.sampler.scheduler import as_sampled, plain, sampler_table

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
UNET = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 4, "out_channels": 4}
SD3 = {
    "_class_name": "SD3Transformer2DModel",
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
}
SHIFTING = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15,
            "base_image_seq_len": 256, "max_image_seq_len": 4096}  # fmt: skip


def source(folder: Path, config: dict[str, Any], network: dict[str, Any] = UNET, **index: Any) -> Source:
    if index:
        (folder / "model_index.json").write_text(json.dumps(index))
    return Source("made up", folder, folder, dict(network), {"_class_name": "DDIMScheduler", **config}, ())


def test_the_class_in_the_index_wins_and_a_disagreement_is_said(tmp_path: Path) -> None:
    model = source(tmp_path, {"_class_name": "EulerDiscreteScheduler", **BETAS},
                   scheduler=["diffusers", "EulerAncestralDiscreteScheduler"])  # fmt: skip
    found, notes = as_sampled(model)
    assert found.scheduler_config["_class_name"] == "EulerAncestralDiscreteScheduler"
    assert sampler_table(UNET, found.scheduler_config, 3).stochastic
    assert len(notes) == 1
    assert "EulerAncestralDiscreteScheduler" in notes[0]
    given, notes = as_sampled(model, own=False)  # --scheduler: its config's class
    assert given.scheduler_config["_class_name"] == "EulerDiscreteScheduler"
    assert notes == ()


@pytest.mark.parametrize("entry", [None, [None, None], ["diffusers", "DDIMScheduler"]])
def test_an_index_that_agrees_changes_nothing(entry: Any, tmp_path: Path) -> None:
    config = {**BETAS, "clip_sample": False, "steps_offset": 1}
    found, notes = as_sampled(source(tmp_path, config, scheduler=entry, _class_name="StableDiffusionPipeline"))
    assert found.scheduler_config == {"_class_name": "DDIMScheduler", **config}
    assert notes == ()


def test_code_of_a_repository_is_no_scheduler(tmp_path: Path) -> None:
    with pytest.raises(SamplerError, match=r"'Own' is code of 'scheduler', .*--scheduler"):
        as_sampled(source(tmp_path, {}, scheduler=["scheduler", "Own"]))


def test_what_a_pipeline_corrects_of_old_configs_is_taken_over(tmp_path: Path) -> None:
    """StableDiffusionPipeline.__init__ of diffusers sets these; PNDMPipeline and DDIMPipeline build a scheduler of their own."""
    old = {**UNET, "_diffusers_version": "0.2.2", "sample_size": 32}
    found, notes = as_sampled(source(tmp_path, BETAS, old, _class_name="StableDiffusionPipeline"))
    assert {key: found.scheduler_config[key] for key in ("steps_offset", "clip_sample")} == {
        "steps_offset": 1,
        "clip_sample": False,
    }
    assert found.config["sample_size"] == 64
    assert len(notes) == 3
    for option in ("clip_sample", "steps_offset", "sample_size"):
        assert any(note.startswith(f"StableDiffusionPipeline sets {option} ") for note in notes)
    new, _ = as_sampled(
        source(tmp_path, BETAS, {**old, "_diffusers_version": "0.9.0"}, _class_name="StableDiffusionPipeline")
    )
    assert new.config["sample_size"] == 32
    ddim, notes = as_sampled(source(tmp_path, {"_class_name": "DDPMScheduler"}, _class_name="DDIMPipeline"))
    assert ddim.scheduler_config["_class_name"] == "DDIMScheduler"
    assert "DDIMPipeline samples with DDIMScheduler, not with the DDPMScheduler" in notes[0]


def test_another_scheduler_is_taken_as_it_is_and_the_network_is_corrected_all_the_same(tmp_path: Path) -> None:
    old = {**UNET, "_diffusers_version": "0.2.2", "sample_size": 32}
    given = source(tmp_path, BETAS, old, _class_name="StableDiffusionPipeline")
    found, notes = as_sampled(given, own=False)
    assert found.config["sample_size"] == 64
    assert found.scheduler_config == {"_class_name": "DDIMScheduler", **BETAS}
    assert [note.split(" to ")[0] for note in notes] == ["StableDiffusionPipeline sets sample_size"]


@pytest.mark.parametrize("name", ["Nope", "UNet2DModel", "loading_utils", None, ["pipeline", "Own"]])
def test_a_pipeline_that_diffusers_lacks_corrects_nothing(name: Any, tmp_path: Path) -> None:
    found, notes = as_sampled(source(tmp_path, BETAS, _class_name=name))
    assert found.scheduler_config == {"_class_name": "DDIMScheduler", **BETAS}
    assert notes == ()


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"])
def test_infinite_options_survive_json_that_has_no_infinity(name: str, tmp_path: Path) -> None:
    config = {"_class_name": name, **BETAS, "lambda_min_clipped": -float("inf"), "lower_order_final": True}
    kept = as_sampled(source(tmp_path, config))[0].scheduler_config
    again = json.loads(json.dumps(kept, allow_nan=False))
    assert again["lambda_min_clipped"] == "-Infinity"
    assert load_scheduler(again).config["lambda_min_clipped"] == -float("inf")
    assert sampler_table(UNET, again, 4) == sampler_table(UNET, config, 4)


def test_whatever_stands_in_a_config_is_json() -> None:
    odd = {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": (-float("inf"), "text", None, True)}}
    assert json.loads(json.dumps(plain(odd), allow_nan=False)) == {
        "a": "NaN", "b": [1.0, "Infinity"], "c": {"d": ["-Infinity", "text", None, True]}}  # fmt: skip


@pytest.mark.parametrize(("name", "option"), [("DDPMScheduler", "clip_sample"), ("DDIMScheduler", "thresholding"),
                                              ("CMStochasticIterativeScheduler", "clip_denoised")])  # fmt: skip
def test_no_clip_is_the_remedy_that_the_refusal_names(name: str, option: str, tmp_path: Path) -> None:
    config = {"_class_name": name, "clip_sample": False, option: True, "num_train_timesteps": 40}
    with pytest.raises(
        SamplerError, match=rf"\A[^\n]*{option}=True.*scheduler_config\.json.*--no-clip.*--scheduler[^\n]*\Z"
    ):
        sampler_table(UNET, config, 4)
    found, notes = as_sampled(source(tmp_path, config), clip=False)
    assert found.scheduler_config[option] is False
    assert f"--no-clip sets {option} of {name} to false" in notes[0]
    assert sampler_table(UNET, found.scheduler_config, 4).calls == 4
    assert as_sampled(found, clip=False)[1] == ("--no-clip changes nothing: the scheduler does not clip",)


def test_an_old_config_without_the_key_clips_by_default(tmp_path: Path) -> None:
    found, _ = as_sampled(source(tmp_path, BETAS), clip=False)
    assert found.scheduler_config["clip_sample"] is False


@pytest.mark.parametrize(
    ("size", "mu"), [(32, 0.5), (128, 1.15), ([64, 128], 0.5 + 0.65 * (2048 - 256) / (4096 - 256))]
)
def test_dynamic_shifting_follows_the_number_of_patches(size: Any, mu: float) -> None:
    """At base_image_seq_len patches mu is base_shift, at max_image_seq_len max_shift, and between them a straight line."""
    table = sampler_table({**SD3, "sample_size": size}, SHIFTING, 4)
    scheduler = load_scheduler(SHIFTING)
    scheduler.set_timesteps(4, mu=mu)
    assert table.timesteps == pytest.approx(scheduler.timesteps.tolist(), rel=1e-6)


@pytest.mark.parametrize(("network", "change", "text"), [
    (UNET, {}, "use_dynamic_shifting is true.*set it to false.*--scheduler"),
    (SD3, {"max_image_seq_len": 256}, "the two lengths must differ"), (SD3, {"max_shift": "x"}, "must be numbers"),
])  # fmt: skip
def test_shifting_that_cannot_be_computed_is_refused(
    network: dict[str, Any], change: dict[str, Any], text: str
) -> None:
    with pytest.raises(SamplerError, match=text):
        sampler_table(network, {**SHIFTING, **change}, 4)


def test_the_source_itself_is_left_alone(tmp_path: Path) -> None:
    model = source(
        tmp_path,
        BETAS,
        {**UNET, "_diffusers_version": "0.2.2", "sample_size": 32},
        _class_name="StableDiffusionPipeline",
    )
    before = replace(model, config=dict(model.config), scheduler_config=dict(model.scheduler_config))
    as_sampled(model, clip=False)
    assert model == before


@pytest.mark.parametrize(
    "name",
    [
        "DDPMScheduler", "LCMScheduler", "TCDScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
        "SASolverScheduler",
    ],
)  # fmt: skip
def test_a_scheduler_that_skips_draws_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same seed all others draw what a generator that is asked at each call gives."""
    scheduler = load_scheduler({"_class_name": name, **BETAS})
    module, drawn = sys.modules[type(scheduler).__module__], list[int]()
    draw = module.randn_tensor

    def counted(*given: Any, **named: Any) -> Any:
        drawn[-1] += 1
        return draw(*given, **named)

    monkeypatch.setattr(module, "randn_tensor", counted)
    scheduler.set_timesteps(5)
    x = torch.zeros(1, 1, 2, 2)
    for timestep in scheduler.timesteps:
        drawn.append(0)
        x = scheduler.step(scheduler.scale_model_input(x, timestep) * 0 + 0.1, timestep, x)[0]
    while drawn and drawn[-1] == 0:
        drawn.pop()
    _, notes = as_sampled(source(tmp_path, {"_class_name": name, **BETAS}))
    assert any("draws noise at some calls only" in note for note in notes) is (set(drawn) != {1})
