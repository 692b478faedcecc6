"""A picture of a prompt, and of another picture, by diffusers' own pipeline in FP32: what every other picture is held against."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from dq_toolchain.calibrate.data.conditioning import told_guidance
from dq_toolchain.calibrate.data.encoders import pipeline_class
from dq_toolchain.toolchain.console.quiet import unheard
from dq_toolchain.toolchain.disk.pictures import read_png
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.models.architectures import ARCHITECTURES
from dq_toolchain.toolchain.models.image_to_image import image_to_image_class, start_rounds_of
from dq_toolchain.toolchain.models.parts import FAULTS
from dq_toolchain.toolchain.models.source import pipeline_index
from dq_toolchain.toolchain.parts.beginning import STRENGTH
from dq_toolchain.toolchain.parts.generation import Picture
from dq_toolchain.toolchain.parts.picture import pixels
from dq_toolchain.toolchain.parts.prompting import Wish, check_image
from dq_toolchain.toolchain.sampler.starts import first_step

USUAL_SIDE = 128
"""Of latents, where neither the network's config nor the pipeline says a size, as for Z-Image."""


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
        RecipeError: there is no prompt, there is a label, or the wish's picture or strength does not fit.
    """
    check_image(wish)
    if wish.label is not None:
        raise RecipeError("--label: a pipeline draws in FP32 what a text says, and takes no class; leave it out")
    if wish.prompt is None:
        raise RecipeError(
            '--prompt is missing: a pipeline draws what a text says; give one, as in --prompt "a red house"'
        )
    kind = pipeline_class(folder, pipeline_index(folder))
    options: dict[str, Any] = {} if steps is None else {"num_inference_steps": steps}
    if wish.negative:
        options["negative_prompt"] = wish.negative
    if wish.image is not None:
        options |= _image_options(kind, wish, steps)
    latents: list[Tensor] = []
    done = 0

    def at_end(total: int, found: Tensor) -> None:
        nonlocal done
        done += 1
        on_step(done, total)
        latents[:] = [found]

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        with unheard(), torch.no_grad():
            pipeline = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32, safety_checker=None
            )
            if wish.image is not None:
                options["image"] = _picture(wish.image, pipeline)
                pipeline = diffusers.AutoPipelineForImage2Image.from_pipe(pipeline)
            pipeline.set_progress_bar_config(disable=True)
            if guidance is not None:
                options |= _guidance_options(pipeline, guidance, wish)
            made = pipeline(
                wish.prompt,
                generator=torch.Generator("cpu").manual_seed(wish.seed),
                output_type="pt",
                **_told(pipeline, at_end),
                **options,
            )
    except FAULTS as error:
        raise ModelError(
            f"{kind.__name__} cannot draw with {folder}: {' '.join(str(error).split())[:300]}; check the folder and the settings"
        ) from error
    return Picture(pixels(made.images[0] * 2 - 1), latents[0])


def _guidance_options(pipeline: Any, guidance: float, wish: Wish) -> dict[str, Any]:
    """Guidance w of f_u + w (f_c - f_u), or what a network is told, in the words of the pipeline's call."""
    network = _network(pipeline)
    found = ARCHITECTURES.get(type(network).__name__)
    if found is None or told_guidance({"_class_name": type(network).__name__, **network.config}):
        return {"guidance_scale": guidance}
    if found.scale_name not in inspect.signature(pipeline.__call__).parameters:
        return {"guidance_scale": guidance}
    less = max(0.0, guidance - found.guidance_less)
    has_own_name = found.scale_name != "guidance_scale"  # such a scale counts only if there is a negative prompt
    return {found.scale_name: less} | ({"negative_prompt": wish.negative} if has_own_name else {})


def _told(pipeline: Any, at_end: Callable[[int, Tensor], None]) -> dict[str, Any]:
    """Arguments of a pipeline's call that let ``at_end`` be told of each step: number of steps, latents."""

    def new(made: Any, _step: int, _timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        at_end(made.num_timesteps, given["latents"])
        return given

    def old(_step: int, _timestep: Any, latents: Tensor) -> None:
        scheduler = pipeline.scheduler
        at_end(-(-len(scheduler.timesteps) // getattr(scheduler, "order", 1)), latents)

    accepted = inspect.signature(pipeline.__call__).parameters
    told: dict[str, Any] = {"callback": old}
    if "callback_on_step_end" in accepted:
        told = {"callback_on_step_end": new, "callback_on_step_end_tensor_inputs": ["latents"]}
    # pictures of the model's own size, whatever sizes a pipeline was trained at
    return told | ({"use_resolution_binning": False} if "use_resolution_binning" in accepted else {})


def _network(pipeline: Any) -> Any:
    return getattr(pipeline, "unet", None) or pipeline.transformer


def _image_options(kind: Any, wish: Wish, steps: int | None) -> dict[str, Any]:
    """Raises RecipeError: diffusers has no such pipeline, or the strength leaves no step."""
    other = image_to_image_class(kind.__name__)
    if other is None:
        raise RecipeError(
            f"--image: diffusers has no pipeline that begins with a picture for {kind.__name__}; leave it out"
        )
    strength = STRENGTH if wish.strength is None else wish.strength
    usual = inspect.signature(other.__call__).parameters["num_inference_steps"].default
    first_step(strength, usual if steps is None else steps, start_rounds_of(other) or "up")
    return {"strength": strength}


def _picture(path: Path, pipeline: Any) -> Tensor:
    """(1, 3, H, W) in [0, 1], of the size that the pipeline draws by itself. Raises RecipeError: of another size."""
    config = _network(pipeline).config
    sides = config.get("sample_size") or getattr(pipeline, "default_sample_size", USUAL_SIDE)
    height, width = (
        side * pipeline.vae_scale_factor for side in (sides if isinstance(sides, list | tuple) else (sides, sides))
    )
    return read_png(path, height, width)[None].to(torch.float32) / 255
