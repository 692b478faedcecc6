"""From the pipeline of a model to its parts in integers, with FP32's answers beside them."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.conditioning import first_held_out
from dq_toolchain.calibrate.data.encoders import ENCODERS, encoders_of, text_pipeline
from dq_toolchain.calibrate.data.notes import Warn
from dq_toolchain.calibrate.data.prompts import read_prompts
from dq_toolchain.calibrate.parts.image import config_of, image_side
from dq_toolchain.calibrate.parts.memory import decoder_place
from dq_toolchain.calibrate.parts.quantize import quantized
from dq_toolchain.calibrate.parts.text import NotExported
from dq_toolchain.calibrate.parts.text_side import NO_TEXT, TextSide, text_side
from dq_toolchain.toolchain.disk.staging import staged
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architectures import inputs_of
from dq_toolchain.toolchain.models.decoder import load_autoencoder
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.models.lora import fuse_into_encoders
from dq_toolchain.toolchain.models.source import pipeline_index, read_config
from dq_toolchain.toolchain.parts.artifact import PartsArtifact, PartsReference, write_none
from dq_toolchain.toolchain.parts.part import DECODER, Part, architecture, filled
from dq_toolchain.toolchain.parts.picture import CLASSES, state_of
from dq_toolchain.toolchain.parts.pipeline import CONSTANTS, FOLDER, JSON, PictureSize, Pipeline
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.conditioning import Conditioning

PROMPTS, PICTURES = 4, 2
"""That FP32's answers are kept of."""
MEASURED = 8
"""Pictures and prompts of the calibration whose extremes are a part's ranges; it is judged on others."""


def comes_with_parts(model: Model) -> bool:
    """Whether there is a pipeline around the network, so that ``write_parts`` writes its parts, or why there are none."""
    return model.pipeline is not None or (model.folder / "model_index.json").is_file()


def write_parts(
    model: Model,
    recipe: Recipe,
    bank: Conditioning,
    latents: Tensor,
    ends: Tensor,
    calibration: Path,
    warn: Warn,
    *,
    fitted: int,
) -> PartsArtifact | None:
    """Write the folder ``parts`` of an artifact; None if the model came without a pipeline, or it cannot be exported.

    Args:
        bank: conditioning of the calibration, for what no prompt decides.
        latents: (S, C, h, w) at the end of FP32 rollouts of held-out samples.
        ends: (M, C, h, w), those of calibration samples; ranges are measured on them.
        calibration: folder of the artifact. warn: is told why there are no parts, where there could have been.
        fitted: calibration samples, behind whose prompts held-out samples begin. The recipe as the user wrote it may not know.
    Raises:
        ModelError: a part cannot be read.
        ToolchainError: the folder cannot be written.
    """
    shutil.rmtree(calibration / FOLDER, ignore_errors=True)  # of an older artifact, whose parts these are not
    if not comes_with_parts(model):
        return None
    try:
        with staged(calibration / FOLDER, JSON) as folder:
            made = _parts(model, recipe, bank, latents[:PICTURES].contiguous(), ends[:MEASURED], folder, warn, fitted)
            made.write(folder, calibration)
            return made
    except NotExported as error:
        write_none(calibration, str(error))
        if str(error):
            warn(f"{error}: the bundle will hold the network alone, without text encoders and decoder")
        return None


def check_decoder(recipe: Recipe) -> None:
    """Raise ModelError, before hours of work, unless what --vae names can be read and exported."""
    given = recipe.model.vae
    if given is None:
        return
    place = given / "vae" if (given / "vae").is_dir() else given
    load_autoencoder(place, "--vae")
    name = read_config(place / "config.json").get("_class_name")
    if name not in CLASSES:
        raise ModelError(
            f"--vae: the decoder of class {name} is not exported, allowed are {' and '.join(CLASSES)}; give another"
        )


def _parts(
    model: Model,
    recipe: Recipe,
    bank: Conditioning,
    latents: Tensor,
    ends: Tensor,
    folder: Path,
    warn: Warn,
    fitted: int,
) -> PartsArtifact:
    inputs = tuple(inputs_of(model.config))
    text = _text(model, recipe, inputs, folder, warn, fitted)
    gc.collect()  # encoders can be larger than the network
    vae = _autoencoder(model, recipe, warn)
    decoder, pictures, measured = _decoder(vae, latents, ends)
    if decoder is None and not text.parts:
        raise NotExported  # nothing that could be exported
    if text is NO_TEXT and "encoder_hidden_states" in inputs:
        raise NotExported("the network takes text and the model came without text encoders")
    constants = _constants(bank, [name for name in inputs if name not in text.conditioning])
    size = None if pictures is None else pictures.shape[1:]
    image = None
    if pictures is not None:
        image = image_side(vae, _class_of(model), model, recipe, pictures, measured, latents, warn)
    about = Pipeline(
        pipeline=_class_of(model),
        tokenizers=text.tokenizers,
        encoders=text.encoders,
        conditioning=text.conditioning,
        constants=CONSTANTS if constants else None,
        zeros_without_negative=text.zeros,
        decoder=None if size is None else PictureSize(channels=size[0], height=size[1], width=size[2]),
        image=None if image is None else image.about,
    )
    reference = PartsReference(
        prompts=text.prompts,
        conditioning=text.rows,
        latents=None if pictures is None else latents,
        pictures=pictures,
        means=None if image is None else image.means,
        drawn=_drawn(recipe, fitted, len(latents)) if text.parts and recipe.conditioning.file is None else (),
        negative=recipe.conditioning.negative_prompt,
    )
    parts = (*text.parts, *(() if image is None else (image.part,)), *(() if decoder is None else (decoder,)))
    return PartsArtifact(pipeline=about, parts=parts, constants=constants, reference=reference)


def _class_of(model: Model) -> str:
    return (
        type(model.pipeline).__name__
        if model.pipeline is not None
        else str(pipeline_index(model.folder).get("_class_name"))
    )


def _text(model: Model, recipe: Recipe, inputs: Collection[str], folder: Path, warn: Warn, fitted: int) -> TextSide:
    pipeline: Any = model.pipeline
    names = encoders_of(model.folder) if pipeline is None else [n for n in ENCODERS if getattr(pipeline, n, None)]
    if not names:
        return NO_TEXT
    pipeline = text_pipeline(model.folder, warn) if pipeline is None else pipeline
    if model.lora is not None:
        fuse_into_encoders(pipeline, model.network, model.lora)
    prompts, negative = _prompts(recipe, fitted), recipe.conditioning.negative_prompt
    judged = prompts[:PROMPTS]
    measured = [each for each in read_prompts(recipe.conditioning.prompts)[:fitted] if each not in judged][:MEASURED]
    kept = [*judged, *([negative] if negative else [])]
    return text_side(pipeline, model.config, inputs, kept, [*(measured or judged), negative], folder)


def _drawn(recipe: Recipe, fitted: int, count: int) -> tuple[str, ...]:
    """Prompts of the first held-out samples, which take them in turn."""
    prompts = _prompts(recipe, fitted)
    return tuple(prompts[index % len(prompts)] for index in range(count))


def _prompts(recipe: Recipe, fitted: int) -> list[str]:
    """From that of the first held-out sample on."""
    prompts = read_prompts(recipe.conditioning.prompts)
    first = first_held_out(len(prompts), fitted)
    return prompts[first:] + prompts[:first]


def _autoencoder(model: Model, recipe: Recipe, warn: Warn) -> Any:
    """A module of diffusers; None where there is none. Raises NotExported: it cannot be read."""
    given = recipe.model.vae
    if given is None and model.pipeline is not None:
        return getattr(model.pipeline, "vae", None)
    place = decoder_place(model, recipe)
    if place is None:
        return None
    try:
        return load_autoencoder(place, f"the decoder in {place}" if given is None else "--vae", warn)
    except ModelError as error:  # hours of calibration are not lost to it
        raise NotExported(str(error)) from error


@torch.no_grad()
def _decoder(vae: Any, latents: Tensor, ends: Tensor) -> tuple[Part | None, Tensor | None, list[Tensor]]:
    """The decoder as a part, its FP32 pictures (S, 3, H, W) of the latents, and those (1, 3, H, W) of the ends, on which its ranges
    are measured; None, None and none where there is no decoder."""
    if vae is None:
        return None, None, []
    config = config_of(vae)
    if config["latent_channels"] != latents.shape[1]:
        raise NotExported(
            f"the decoder takes latents of {config['latent_channels']} channels, the network's have {latents.shape[1]}"
        )
    if config["_class_name"] not in CLASSES:
        raise NotExported(
            f"the decoder is of class {config['_class_name']}; those of {' and '.join(CLASSES)} are exported"
        )
    module = architecture(DECODER, config, {})
    filled(module, {name: value.float() for name, value in state_of(vae).items()})
    measured: list[Tensor] = []
    with hooks([module.register_forward_hook(lambda _module, _given, result: measured.append(result[0]))]):
        calls = [{"latents": row[None]} for row in ends]
        part = quantized(DECODER, DECODER, config, {}, module, calls, ("picture",))
    return part, torch.cat([module(row[None])[0] for row in latents]), measured


def _constants(bank: Conditioning, names: Collection[str]) -> dict[str, Tensor]:
    """Rows of inputs that no prompt decides, of the calibration's first sample: sizes, an embedded guidance, the null label."""
    sides = {"cond": bank.cond, "uncond": bank.uncond}
    return {
        f"{side}.{name}": tensors[name][:1].clone()
        for side, tensors in sides.items()
        for name in names
        if name in tensors
    }
