"""Pictures of a pipeline in FP32 are those of a direct call, whatever the pipeline's call names its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from dq_toolchain.calibrate.parts.fp32 import _guidance_options, generate
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.parts.picture import pixels
from dq_toolchain.toolchain.parts.prompting import Wish
from tests.tiny_chat import qwen_image, z_image
from tests.tiny_pipelines import flux, save_flux, save_pixart, save_sd

PROMPT, SEED, STEPS = "a red fox", 7, 3


class Pipeline:
    """Of a pipeline its network and its call's arguments."""

    def __init__(self, kind: Any, network: torch.nn.Module) -> None:
        self.transformer, self.unet = network, None
        self.__call__ = kind.__call__


def directly(folder: Path, **options: Any) -> Any:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(SEED)
    made = pipeline(PROMPT, generator=generator, output_type="pt", num_inference_steps=STEPS, **options)
    return made.images[0]


@pytest.mark.parametrize(
    ("save", "guidance", "options"),
    [
        (save_sd, 3.0, {"guidance_scale": 3.0}),
        (save_pixart, 3.0, {"guidance_scale": 3.0, "use_resolution_binning": False}),
        (save_flux, 3.0, {"true_cfg_scale": 3.0, "negative_prompt": ""}),
        (save_flux, 1.0, {}),
        (save_flux, None, {}),
    ],
)
def test_the_picture_is_that_of_a_direct_call(
    save: Callable[[Path], Path], guidance: float | None, options: dict[str, Any], tmp_path: Path
) -> None:
    folder, seen = save(tmp_path / "pipeline"), []
    found = generate(
        folder, Wish(prompt=PROMPT, seed=SEED), steps=STEPS, guidance=guidance,
        on_step=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    wanted = directly(folder, **options)
    assert torch.isfinite(found.latents).all()
    assert torch.equal(found.pixels, pixels(wanted * 2 - 1))
    assert seen == [(step + 1, STEPS) for step in range(STEPS)]


@pytest.mark.parametrize(
    ("kind", "network", "options"),
    [
        (diffusers.FluxPipeline, lambda: flux(guidance_embeds=True), {"guidance_scale": 3.5}),
        (diffusers.FluxPipeline, flux, {"true_cfg_scale": 3.5, "negative_prompt": "fog"}),
        (diffusers.QwenImagePipeline, qwen_image, {"true_cfg_scale": 3.5, "negative_prompt": "fog"}),
        (diffusers.ZImagePipeline, z_image, {"guidance_scale": 2.5}),
    ],
)
def test_guidance_is_named_and_counted_as_the_pipeline_does(
    kind: Any, network: Callable[[], torch.nn.Module], options: dict[str, Any]
) -> None:
    assert _guidance_options(Pipeline(kind, network()), 3.5, Wish(prompt=PROMPT, negative="fog")) == options


def test_a_run_of_flux_begins_with_a_picture_of_the_size_that_its_pipeline_draws(tmp_path: Path) -> None:
    folder, image = save_flux(tmp_path / "pipeline"), tmp_path / "in.png"
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(image)
    found = generate(folder, Wish(prompt=PROMPT, seed=SEED, image=image, strength=0.5), steps=2)
    assert found.pixels.shape == (3, 128, 128)


def test_a_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--label: a pipeline draws in FP32 what a text says"):
        generate(tmp_path, Wish(prompt=PROMPT, label=3))
