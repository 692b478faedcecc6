"""A picture of a prompt by diffusers' own pipeline in FP32: what every other picture is held against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from dq_toolchain.calibrate.data.encoders import pipeline_class
from dq_toolchain.toolchain.console.quiet import unheard
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.models.parts import FAULTS
from dq_toolchain.toolchain.models.source import pipeline_index
from dq_toolchain.toolchain.parts.generation import Picture
from dq_toolchain.toolchain.parts.picture import pixels
from dq_toolchain.toolchain.parts.prompting import Wish


def generate(
    folder: Path,
    wish: Wish,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> Picture:
    """The picture of a wish. Only safetensors are read, and no code of the folder is run.

    Args:
        steps, guidance: None is what the pipeline's class does by itself.
    Raises:
        ModelError: the pipeline cannot be loaded or called.
        RecipeError: there is no prompt.
    """
    if wish.prompt is None:
        raise RecipeError(
            '--prompt is missing: a pipeline draws what a text says; give one, as in --prompt "a red house"'
        )
    kind = pipeline_class(folder, pipeline_index(folder))
    options: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance}
    options = {name: value for name, value in options.items() if value is not None}
    if wish.negative:
        options["negative_prompt"] = wish.negative
    latents: list[torch.Tensor] = []
    done = 0

    def at_end(pipeline: Any, _step: int, _timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        nonlocal done
        done += 1
        on_step(done, pipeline.num_timesteps)
        latents[:] = [given["latents"]]
        return given

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        with unheard(), torch.no_grad():
            pipeline = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32, safety_checker=None
            )
            pipeline.set_progress_bar_config(disable=True)
            made = pipeline(
                wish.prompt,
                generator=torch.Generator("cpu").manual_seed(wish.seed),
                output_type="pt",
                callback_on_step_end=at_end,
                callback_on_step_end_tensor_inputs=["latents"],
                **options,
            )
    except FAULTS as error:
        raise ModelError(
            f"{kind.__name__} cannot draw with {folder}: {' '.join(str(error).split())[:300]}; check the folder and the settings"
        ) from error
    return Picture(pixels(made.images[0] * 2 - 1), latents[0])
