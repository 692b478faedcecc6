"""The parts of real pipelines (small, random): proven against diffusers, quantized, written, read again."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, VQModel
from torch import Tensor

from dq_toolchain.calibrate.data.conditioning import conditioning_bank
from dq_toolchain.calibrate.parts.make import PICTURES, check_decoder, write_parts
from dq_toolchain.toolchain.errors import ArtifactError, ModelError
from dq_toolchain.toolchain.formats.listing import JSON as CALIBRATION
from dq_toolchain.toolchain.models.decoder import load_decoder
from dq_toolchain.toolchain.models.loading import Model, load_model
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.pipeline import FOLDER, NONE
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from tests import tiny, tiny_pipelines

LATENTS = torch.randn((5, 4, 8, 8), generator=torch.Generator().manual_seed(0))
ENDS = torch.randn((9, 4, 8, 8), generator=torch.Generator().manual_seed(1))
PROMPTS = "a red fox\ntwo ships\nsnow\n"


def written(
    folder: Path,
    model: Model,
    vae: Path | None = None,
    steps: int = 20,
    samples: int = 128,
    ends: Tensor = ENDS,
    **conditioning: Any,
) -> tuple[PartsArtifact | None, list[str]]:
    """What ``write_parts`` made in the folder, and what it said."""
    (folder / "prompts.txt").write_text(PROMPTS)
    (folder / CALIBRATION).write_text("{}")
    told: list[str] = []
    settings = {"prompts": folder / "prompts.txt", **conditioning}
    sections: dict[str, Any] = {"model": {"vae": vae}}
    recipe = load_recipe(
        None,
        {
            **sections,
            "sampler": {"guidance": 3.0, "steps": steps},
            "conditioning": settings,
            "run": {"out": folder / "out"},
        },
    )
    bank = conditioning_bank(model, recipe, told.append)
    return write_parts(model, recipe, bank, LATENTS, ends, folder, told.append, fitted=samples), told


@pytest.mark.parametrize(
    ("save", "names", "inputs"),
    [
        (tiny_pipelines.save_sd, ["text_encoder", "vae_encoder", "decoder"], ["encoder_hidden_states"]),
        (tiny_pipelines.save_lcm, ["text_encoder", "decoder"], ["encoder_hidden_states"]),
        (
            tiny_pipelines.save_sdxl,
            ["text_encoder", "text_encoder_2", "vae_encoder", "decoder"],
            ["encoder_hidden_states", "text_embeds"],
        ),
        (
            tiny_pipelines.save_sd3,
            ["text_encoder", "text_encoder_2", "text_encoder_3", "vae_encoder", "decoder"],
            ["encoder_hidden_states", "pooled_projections"],
        ),
        (tiny_pipelines.save_pixart, ["text_encoder", "decoder"], ["encoder_hidden_states", "encoder_attention_mask"]),
    ],
)
def test_parts_of_a_pipeline(save: Callable[[Path], Path], names: list[str], inputs: list[str], tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "model"))
    made, _ = written(tmp_path, model)
    again = PartsArtifact.load(tmp_path)
    assert made is not None
    assert again is not None
    assert [part.name for part in again.parts] == names
    assert sorted(again.pipeline.conditioning) == sorted(inputs)
    assert again.pipeline == made.pipeline
    assert again.reference.prompts == ("a red fox", "two ships", "snow")
    assert again.reference.pictures is not None
    theirs = load_decoder(tmp_path / "model")(LATENTS[:PICTURES])
    torch.testing.assert_close(again.reference.pictures.clamp(-1, 1), theirs, rtol=1e-5, atol=1e-5)
    assert "/" not in json.dumps(again.pipeline.to_json()).replace("parts/", ""), "no path of this machine"


def test_what_no_prompt_decides_is_kept(tmp_path: Path) -> None:
    made, _ = written(tmp_path, load_model(tiny_pipelines.save_sdxl(tmp_path / "model")))
    assert made is not None
    assert made.pipeline.zeros_without_negative
    assert sorted(made.constants) == ["cond.time_ids", "uncond.time_ids"]


def test_a_negative_prompt_is_among_the_reference(tmp_path: Path) -> None:
    model = load_model(tiny_pipelines.save_sd(tmp_path / "model"))
    made, _ = written(tmp_path, model, negative_prompt="blur")
    assert made is not None
    assert made.reference.prompts[-1] == "blur"


def test_pictures_are_of_the_prompts_that_held_out_samples_take(tmp_path: Path) -> None:
    model = load_model(tiny_pipelines.save_sd(tmp_path))
    drawn = {}
    for samples in (2, 3):  # of three prompts two are calibrated on, or all
        artifact, _ = written(tmp_path, model, samples=samples)
        assert artifact is not None
        drawn[samples] = artifact.reference.drawn
    assert drawn == {2: ("snow", "a red fox"), 3: ("a red fox", "two ships")}


def test_ranges_are_measured_on_pictures_and_prompts_that_are_not_judged(tmp_path: Path) -> None:
    model = load_model(tiny_pipelines.save_sd(tmp_path))

    def ranges(*, prompt: str, ends: Tensor) -> dict[str, Tensor]:
        (tmp_path / "more.txt").write_text(PROMPTS + "fog\n" + f"{prompt}\n")
        artifact, _ = written(tmp_path, model, ends=ends, prompts=tmp_path / "more.txt")
        assert artifact is not None
        assert artifact.reference.prompts == ("a red fox", "two ships", "snow", "fog")
        return {f"{part.name}.{name}": ends for part in artifact.parts for name, ends in part.ranges.items()}

    before = ranges(prompt="a ship at sea", ends=ENDS)
    after = ranges(prompt="a ship at sea", ends=torch.cat((ENDS[:8], 9 * ENDS[8:])))  # of eight pictures
    assert all(torch.equal(after[name], old) for name, old in before.items())
    after = ranges(prompt="seven red foxes in the snow", ends=2 * ENDS)
    changed = {name.partition(".")[0] for name, old in before.items() if not torch.equal(after[name], old)}
    assert changed == {"text_encoder", "vae_encoder", "decoder"}


def test_a_pipeline_in_memory_has_parts(tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipelines.save_sd(tmp_path / "model"), safety_checker=None)
    loaded = load_model(tmp_path / "model")
    model = Model(
        "in memory", "0", loaded.config, loaded.scheduler_config, pipeline.unet, Path("nowhere"), pipeline=pipeline
    )
    made, _ = written(tmp_path, model)
    assert made is not None
    assert [part.name for part in made.parts] == ["text_encoder", "vae_encoder", "decoder"]


def test_an_encoder_that_is_used_in_another_way_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = StableDiffusionPipeline.encode_prompt

    @functools.wraps(theirs)  # whose signature is asked for
    def weighted(self: Any, *given: Any, **named: Any) -> Any:
        return tuple(None if rows is None else 1.01 * rows for rows in theirs(self, *given, **named))

    monkeypatch.setattr(StableDiffusionPipeline, "encode_prompt", weighted)
    made, told = written(tmp_path, load_model(tiny_pipelines.save_sd(tmp_path / "model")))
    assert made is None
    assert any("in a way that is not known: encoder_hidden_states differs by" in line for line in told)
    assert any("the bundle will hold the network alone" in line for line in told)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [NONE]


def test_a_decoder_of_another_class_is_named(tmp_path: Path) -> None:
    model = load_model(tiny_pipelines.save_sd(tmp_path / "model"))
    VQModel(latent_channels=4, vq_embed_dim=4, block_out_channels=(8,), norm_num_groups=4).save_pretrained(
        tmp_path / "model" / "vae"
    )
    made, told = written(tmp_path, model)
    assert made is None
    assert any("class VQModel" in line for line in told)


def test_a_bare_network_has_no_parts(tmp_path: Path) -> None:
    model, recipe = load_model(tiny.write_tiny_model(tmp_path / "model")), load_recipe(None, {})
    (tmp_path / FOLDER).mkdir()  # of an older calibration in the same place
    assert write_parts(model, recipe, Conditioning(), LATENTS, ENDS, tmp_path, pytest.fail, fitted=8) is None
    assert not (tmp_path / FOLDER).exists()


def test_parts_of_another_calibration_are_refused(tmp_path: Path) -> None:
    written(tmp_path, load_model(tiny_pipelines.save_sd(tmp_path / "model")))
    (tmp_path / CALIBRATION).write_text('{"another": 1}')
    with pytest.raises(ArtifactError, match="made with another"):
        PartsArtifact.load(tmp_path)


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    written(tmp_path, load_model(tiny_pipelines.save_sd(tmp_path / "model")))
    file = tmp_path / FOLDER / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text() + " ")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        PartsArtifact.load(tmp_path)


def test_another_decoder_takes_the_place_of_the_models_own(tmp_path: Path) -> None:
    model = load_model(tiny_pipelines.save_sd(tmp_path / "model"))
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(tmp_path / "taesd")
    made, _ = written(tmp_path, model, vae=tmp_path / "taesd")
    assert made is not None
    assert made.part("decoder").config["_class_name"] == "AutoencoderTiny"
    assert made.pipeline.image is not None
    assert made.pipeline.image.outputs == ("mean",)
    assert made.reference.pictures is not None
    theirs = load_decoder(tmp_path / "taesd")(LATENTS[:PICTURES])
    torch.testing.assert_close(made.reference.pictures.clamp(-1, 1), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["missing", "vq"])
def test_a_decoder_that_cannot_be_exported_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    VQModel(latent_channels=4, vq_embed_dim=4, block_out_channels=(8,), norm_num_groups=4).save_pretrained(
        tmp_path / "vq"
    )
    with pytest.raises(ModelError, match="--vae"):
        check_decoder(load_recipe(None, {"model": {"vae": tmp_path / name}}))


def test_a_damaged_decoder_costs_the_decoder_alone(tmp_path: Path) -> None:
    model = load_model(tiny_pipelines.save_sd(tmp_path / "model"))
    next((tmp_path / "model" / "vae").glob("*.safetensors")).write_bytes(b"x")
    made, told = written(tmp_path, model)
    assert made is None
    assert any("vae" in line and "network alone" in line for line in told)
