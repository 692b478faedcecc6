"""Runs that begin with a picture are those of diffusers' own image-to-image pipelines: encoder, first step, noise, latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    AutoPipelineForImage2Image,
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image
from torch import Tensor, nn

from dq_toolchain.calibrate.data.conditioning import conditioning_bank
from dq_toolchain.calibrate.parts.image import config_of
from dq_toolchain.toolchain.models.image_to_image import begins_with_pictures
from dq_toolchain.toolchain.models.loading import Model, load_model
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.beginning import from_picture
from dq_toolchain.toolchain.parts.generation import picture_of
from dq_toolchain.toolchain.parts.image_to_image import ImageToImage
from dq_toolchain.toolchain.parts.part import architecture, filled
from dq_toolchain.toolchain.parts.picture import PictureEncoder, state_of
from dq_toolchain.toolchain.parts.pipeline import Pipeline
from dq_toolchain.toolchain.parts.prompting import Wish
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.scheduler import sampler_starts, sampler_table
from dq_toolchain.toolchain.sampler.start_probe import MOST_STEPS
from tests import tiny_pipelines
from tests.calibrate.parts.test_make import written
from tests.tiny_parts import lively

PROMPT, GUIDANCE, SEED, STEPS = "a red fox", 3.0, 7, 5
SAME = 1e-4
"""Relative error of latents; the scheduler's own arithmetic is float32."""
SCALED: Mapping[str, Any] = {"beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Theirs:
    """A pipeline of diffusers, and what it takes to run the same network with our own sampler."""

    pipeline: Any
    model: Model
    bank: Conditioning
    image: Path

    def latents(self, scheduler: Any, strength: float) -> Tensor:
        self.pipeline.scheduler = scheduler
        found: Tensor = self.pipeline(
            PROMPT,
            image=Image.open(self.image).convert("RGB"),
            strength=strength,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type="latent",
        ).images
        return found

    def ours(self, scheduler: Any, strength: float) -> Tensor:
        network, vae = self.model.config, self.pipeline.vae
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        table = sampler_table(network, config, STEPS)
        rounds = begins_with_pictures(type(self.pipeline).__name__)
        assert rounds is not None
        starts = {STEPS: sampler_starts(network, config, STEPS)}
        about = ImageToImage(
            channels=3, height=8, width=8, outputs=("mean", "deviation"), start_rounds=rounds, starts=starts
        )
        encoder = encoder_of(vae)

        def run(_name: str, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            return dict(zip(about.outputs, encoder(given["picture"]), strict=True))

        pipeline = Pipeline(
            pipeline="", tokenizers=(), encoders=(), conditioning={}, constants=None, zeros_without_negative=False,
            decoder=None, image=about,
        )  # fmt: skip
        given = from_picture(Wish(image=self.image, strength=strength), pipeline, STEPS)
        denoiser = Denoiser(self.model.network, table, self.bank.select(slice(0, 1)), GUIDANCE)
        return picture_of(SEED, (1, 4, 8, 8), table, denoiser, pipeline, run, given=given).latents


def encoder_of(vae: Any) -> nn.Module:
    module = architecture("vae_encoder", config_of(vae), {})
    return filled(module, state_of(vae, PictureEncoder))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "in.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


def theirs(save: Callable[[Path], Path], folder: Path, image: Path) -> Theirs:
    pipeline: Any = DiffusionPipeline.from_pretrained(save(folder / "model"), safety_checker=None)
    (folder / "prompts.txt").write_text(PROMPT)
    recipe = load_recipe(
        None,
        {
            "sampler": {"guidance": GUIDANCE},
            "conditioning": {"prompts": folder / "prompts.txt"},
            "run": {"out": folder / "out"},
        },
    )
    model = load_model(folder / "model")
    begins: Any = AutoPipelineForImage2Image.from_pipe(pipeline)
    begins.set_progress_bar_config(disable=True)
    return Theirs(begins, model, conditioning_bank(model, recipe, lambda _: None), image)


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Theirs:
    return theirs(tiny_pipelines.save_sd, tmp_path_factory.mktemp("sd"), image)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Theirs:
    return theirs(tiny_pipelines.save_sdxl, tmp_path_factory.mktemp("sdxl"), image)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Theirs:
    return theirs(tiny_pipelines.save_sd3, tmp_path_factory.mktemp("sd3"), image)


def assert_same(pipeline: Theirs, scheduler: Any, strength: float) -> None:
    want, got = pipeline.latents(scheduler, strength), pipeline.ours(scheduler, strength)
    assert got.shape == want.shape
    assert float((got - want).norm() / want.norm()) < SAME


STRENGTHS = pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])


@STRENGTHS
@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(**SCALED, clip_sample=False, steps_offset=1),
        EulerDiscreteScheduler(**SCALED),
        DPMSolverMultistepScheduler(**SCALED),
        UniPCMultistepScheduler(**SCALED),
        HeunDiscreteScheduler(**SCALED),
        PNDMScheduler(**SCALED, skip_prk_steps=True, steps_offset=1),
    ],
    ids=lambda each: type(each).__name__,
)
def test_stable_diffusion_begins_as_in_diffusers(scheduler: Any, strength: float, sd: Theirs) -> None:
    assert isinstance(sd.pipeline, StableDiffusionImg2ImgPipeline)
    assert_same(sd, scheduler, strength)


@STRENGTHS
def test_sdxl_begins_as_in_diffusers(strength: float, sdxl: Theirs) -> None:
    assert_same(sdxl, sdxl.pipeline.scheduler, strength)


@STRENGTHS
def test_flow_matching_begins_as_in_diffusers(strength: float, sd3: Theirs) -> None:
    assert_same(sd3, sd3.pipeline.scheduler, strength)


AUTOENCODERS: Mapping[str, Callable[[], Any]] = {
    "KL": lambda: tiny_pipelines.vae(scaling_factor=0.5),
    "KL without quant_conv": lambda: tiny_pipelines.vae(use_quant_conv=False, use_post_quant_conv=False),
    "KL with a shift": lambda: tiny_pipelines.vae(shift_factor=0.1),
    "KL with means": lambda: tiny_pipelines.vae(latents_mean=[0.5, -1.0, 2.0, 0.0], latents_std=[5.0, 4.0, 3.0, 2.0]),
    "KL of two levels": lambda: AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=4,
    ),
    "tiny": lambda: AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AUTOENCODERS)
@torch.no_grad()
def test_the_encoder_is_that_of_diffusers(name: str) -> None:
    torch.manual_seed(0)
    vae: Any = lively(AUTOENCODERS[name]())
    config, picture = vae.config, torch.rand(1, 3, 8, 8) * 2 - 1
    found = encoder_of(vae)(picture)
    encoded = vae.encode(picture)
    if name == "tiny":
        (want,) = (encoded.latents * config.scaling_factor,)
        assert len(found) == 1
    else:
        mean, deviation, scale = encoded.latent_dist.mean, encoded.latent_dist.std, config.scaling_factor
        if name == "KL with means":  # StableDiffusionXLImg2ImgPipeline.prepare_latents
            shift, spread = (torch.tensor(each).view(1, 4, 1, 1) for each in (config.latents_mean, config.latents_std))
            want, drawn = (mean - shift) * scale / spread, deviation * scale / spread
        else:  # StableDiffusion3Img2ImgPipeline.prepare_latents; Stable Diffusion's has no shift
            want, drawn = (mean - (config.shift_factor or 0.0)) * scale, deviation * scale
        torch.testing.assert_close(found[1], drawn, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "rounds"),
    [
        ("StableDiffusionPipeline", "up"),
        ("StableDiffusionXLPipeline", "up"),
        ("StableDiffusion3Pipeline", "down"),
        ("FluxPipeline", "down"),
        ("LatentConsistencyModelPipeline", None),
        ("PixArtAlphaPipeline", None),
        ("DiTPipeline", None),
        ("None", None),
    ],
)
def test_which_pipelines_begin_with_a_picture(name: str, rounds: str | None) -> None:
    assert begins_with_pictures(name) == rounds


def test_the_encoder_is_written_with_what_fp32_makes_of_its_pictures(tmp_path: Path) -> None:
    """And starts for every step count that has held-out rollouts."""
    model = load_model(tiny_pipelines.save_sd(tmp_path / "model"))
    made, _ = written(tmp_path, model)
    again = PartsArtifact.load(tmp_path)
    assert made is not None
    assert again is not None
    about, means, pictures = again.pipeline.image, again.reference.means, again.reference.pictures
    assert about == made.pipeline.image
    assert about is not None
    assert means is not None
    assert pictures is not None
    assert (about.channels, about.height, about.width, about.outputs) == (3, 8, 8, ("mean", "deviation"))
    assert [len(rows) for rows in about.starts.values()] == [20]
    vae = AutoencoderKL.from_pretrained(tmp_path / "model" / "vae")
    with torch.no_grad():
        want = vae.encode(pictures.clamp(-1, 1)).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(means, want, rtol=1e-5, atol=1e-5)


def test_a_pipeline_that_cannot_begin_with_a_picture_says_why(tmp_path: Path) -> None:
    model = load_model(tiny_pipelines.save_sd(tmp_path / "model"))
    made, told = written(tmp_path, model, steps=MOST_STEPS + 1)
    assert made is not None
    assert made.pipeline.image is None
    assert [part.name for part in made.parts] == ["text_encoder", "decoder"]
    assert [line for line in told if line.startswith("no image to image: starts with a picture are held for up to 100")]
