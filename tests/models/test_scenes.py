"""The text-to-image model: small enough for the repository, a pipeline as diffusers reads it, and it draws what a prompt says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from scripts.models.scenes.captions import caption
from scripts.models.scenes.held_out import CALIBRATION_SEED, draw_pictures, held_out, shares
from scripts.models.scenes.networks import build_autoencoder, build_text_encoder, build_unet
from scripts.models.scenes.world import COLOURS, Scene, Thing

from dq_toolchain.toolchain.disk.files import read_tensors
from dq_toolchain.toolchain.verdict.features import ClassifierFeatures

MODEL = Path(__file__).parents[2] / "models" / "scenes"
MOST_BYTES = 25_000_000
WEIGHTS = ("text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")
SCENES = [
    Scene((Thing(digit, colour, "large"),), background, "middle")
    for digit, (colour, background) in enumerate(zip(COLOURS, [*list(COLOURS)[4:], *list(COLOURS)[:4]], strict=True))
] + [Scene((Thing(9, "white", "small"),), "red", "middle")]
"""One of each digit."""


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(MODEL)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_it_is_small_and_has_nothing_to_unpickle() -> None:
    files = [file for file in MODEL.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    assert {file.suffix for file in files} == {".safetensors", ".json", ".txt", ".md", ""}
    for name in WEIGHTS:
        weights = read_tensors(MODEL / f"{name}.safetensors", "train it again")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_it_is_what_the_script_trains(pipeline: StableDiffusionPipeline) -> None:
    built = {"vae": build_autoencoder(), "text_encoder": build_text_encoder(), "unet": build_unet()}
    for name, network in built.items():
        loaded = getattr(pipeline, name).state_dict()
        assert {k: v.shape for k, v in loaded.items()} == {k: v.shape for k, v in network.state_dict().items()}
        assert {tensor.dtype for tensor in loaded.values() if tensor.is_floating_point()} == {torch.float32}


def test_the_tokenizer_is_clips(pipeline: StableDiffusionPipeline) -> None:
    assert len(pipeline.tokenizer) == 49_408
    assert pipeline.tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_the_calibration_prompts_are_the_scripts_and_say_every_digit_and_colour() -> None:
    prompts = (MODEL / "prompts.txt").read_text().splitlines()
    scenes, captions = held_out(64, CALIBRATION_SEED)
    assert prompts == captions
    assert {thing.digit for scene in scenes for thing in scene.things} == set(range(10))
    assert {scene.background for scene in scenes} == set(COLOURS)


def test_it_draws_what_the_prompt_says(pipeline: StableDiffusionPipeline) -> None:
    """Chance: one background in nine, one digit in ten, one colour in nine."""
    draw = random.Random(0)
    prompts = [caption(scene, draw, whole=True) for scene in SCENES]
    found = shares(SCENES, draw_pictures(pipeline, prompts, steps=8, guidance=3.0), ClassifierFeatures())
    assert found["background"] >= 0.9
    assert found["colours"] >= 0.7
    assert found["digits"] >= 0.6


def test_other_words_give_another_picture_and_the_same_words_the_same(pipeline: StableDiffusionPipeline) -> None:
    prompts = [f"a large {colour} seven on {background}" for colour, background in (("red", "blue"), ("blue", "red"))]
    first, other, again = (draw_pictures(pipeline, [prompt], 4, 3.0)[0] for prompt in (*prompts, prompts[0]))
    assert torch.equal(first, again)
    middle_red, middle_blue = first.mean((1, 2))[[0, 2]]
    assert middle_blue > middle_red
    assert other.mean((1, 2))[0] > other.mean((1, 2))[2]
