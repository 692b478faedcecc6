"""Text conditioning: prompts through the pipeline's own tokenizers and encoders, once; what they give is kept on disk.

The encoders are as large as the network that is quantized: they are loaded for this and freed before anything else is.
"""

from __future__ import annotations

import gc
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from dq_toolchain.calibrate.checkpoint import CheckpointFile, fingerprint
from dq_toolchain.toolchain.denoiser import Conditioning
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.lora import fuse_into_encoders
from dq_toolchain.toolchain.models import REFUSALS, Model
from dq_toolchain.toolchain.reading import read_text

DEFAULT = Path(__file__).with_name("prompts.txt")
BATCH = 8
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
POOLED = {"UNet2DConditionModel": "text_embeds", "SD3Transformer2DModel": "pooled_projections"}
"""How the second thing that an ``encode_prompt`` returns is called by the network; PixArt's is the mask of the first."""
Warn = Callable[[str], None]
MASK = "encoder_attention_mask"


def read_prompts(path: Path | None) -> list[str]:
    """One prompt per line; empty lines and those that begin with # are left out. None: the built-in list.

    Raises:
        RecipeError: not readable, or nothing in it.
    """
    remedy = "--prompts takes a text file with one prompt per line"
    lines = read_text(DEFAULT if path is None else path, error=RecipeError, remedy=remedy).splitlines()
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise RecipeError(f"{path} holds no prompt; --prompts takes a text file with one prompt per line")
    return prompts


def encoded_prompts(
    model: Model, file: Path | None, negative: str, guided: bool, cache: Path, warn: Warn
) -> Conditioning:
    """One row per prompt, and one for the negative prompt if there is guidance; empty if the model comes without encoders.

    Args:
        warn: is told of each prompt that is too long for an encoder, when it is encoded.

    Raises:
        RecipeError: the prompts cannot be read, or there are prompts but no encoders.
        ModelError: the encoders cannot be loaded or called.
    """
    if not all((model.folder / name).exists() for name in ("model_index.json", ENCODERS[0])):
        if file is not None:
            raise RecipeError(
                f"[conditioning] prompts: {model.folder} has no model_index.json with a text encoder to read them; give the whole "
                "pipeline's folder, or conditioning made elsewhere with --conditioning"
            )
        return Conditioning()
    prompts = read_prompts(file)
    lora = None if model.lora is None else model.lora.digest
    identity = fingerprint(prompts, negative, guided, _files(model.folder), lora, diffusers.__version__)
    saved = CheckpointFile(cache / f"{identity[:16]}.safetensors", identity)
    found = saved.load()
    if found is None:
        tensors = _encode(model, prompts, negative, guided, warn)
        saved.save(tensors, {})
    else:
        tensors = found[0]
    sides: dict[str, dict[str, Tensor]] = {"cond": {}, "uncond": {}}
    for name, tensor in tensors.items():
        side, _, keyword = name.partition(".")
        sides[side][keyword] = tensor
    return Conditioning(sides["cond"], sides["uncond"])


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """What stands for the encoders' content: reading gigabytes again to see that nothing changed takes longer than encoding."""
    files = sorted(
        path
        for part in folder.iterdir()
        if part.name.startswith(("token", "text_enc"))
        for path in part.rglob("*")
        if path.is_file()
    )
    return [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


@torch.no_grad()
def _encode(model: Model, prompts: Sequence[str], negative: str, guided: bool, warn: Warn) -> dict[str, Tensor]:
    pipeline = _pipeline(model.folder)
    for line in cut_short(pipeline, [*prompts, negative]):
        warn(line)
    if model.lora is not None:
        fuse_into_encoders(pipeline, model.unet, model.lora)
    try:
        batches = [
            _call(pipeline, model.config, prompts[i : i + BATCH], None)[0] for i in range(0, len(prompts), BATCH)
        ]
        found = {f"cond.{name}": torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        if guided:
            _, uncond = _call(pipeline, model.config, prompts[:1], negative)
            found |= {f"uncond.{name}": value for name, value in uncond.items()}
    except REFUSALS as error:
        raise ModelError(
            f"{type(pipeline).__name__} cannot encode prompts: {' '.join(str(error).split())}; check {model.folder}"
        ) from error
    del pipeline
    gc.collect()
    return found


def cut_short(pipeline: Any, prompts: Sequence[str]) -> Iterator[str]:
    """A line for each prompt of which a tokenizer would leave a part out."""
    limit = inspect.signature(pipeline.encode_prompt).parameters.get("max_sequence_length")
    for name in TOKENIZERS:
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is None:
            continue
        most = int(tokenizer.model_max_length)
        if limit is not None and "T5" in type(tokenizer).__name__:  # the pipeline's own limit is for T5 only
            most = min(most, int(limit.default))
        for prompt in prompts:
            count = len(tokenizer(prompt, truncation=False, verbose=False).input_ids)
            if count > most:
                yield f"prompt {prompt[:40]!r} has {count} tokens, {name} takes {most}: the rest is left out"


def _pipeline(folder: Path) -> Any:
    """The pipeline with its tokenizers and encoders only."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    keep = ("tokenizer", "text_encoder")
    left_out = {name: None for name, value in index.items() if isinstance(value, list) and not name.startswith(keep)}
    variants = {
        path.name.split(".")[-2] for path in (folder / ENCODERS[0]).glob("*.safetensors") if path.name.count(".") == 2
    }
    plain = any(path.name.count(".") == 1 for path in (folder / ENCODERS[0]).glob("*.safetensors"))
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        return diffusers.DiffusionPipeline.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32,
            variant=None if plain or not variants else min(variants), **left_out,
        )  # fmt: skip
    except (OSError, ImportError, *REFUSALS) as error:
        raise ModelError(
            f"the text encoders of {folder} cannot be loaded: {' '.join(str(error).split())[:300]}; only safetensors "
            f"are read; or give "
            "conditioning made elsewhere with --conditioning"
        ) from error


def _call(
    pipeline: Any, config: Mapping[str, Any], prompts: Sequence[str], negative: str | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rows of the prompts, and of the negative prompt where there is one."""
    accepted = inspect.signature(pipeline.encode_prompt).parameters
    given: dict[str, Any] = {
        "prompt": list(prompts), "prompt_2": None, "prompt_3": None, "device": torch.device("cpu"), "num_images_per_prompt": 1,
        "do_classifier_free_guidance": negative is not None, "negative_prompt": None,
    }  # fmt: skip
    if negative or accepted["negative_prompt"].default == "":  # what an empty one becomes is the pipeline's affair
        given["negative_prompt"] = [negative or ""] * len(prompts)
    out = pipeline.encode_prompt(**{name: value for name, value in given.items() if name in accepted})
    if len(out) == 2:
        sides = [{"encoder_hidden_states": states} for states in out]
    elif config["_class_name"] in POOLED:
        pooled = POOLED[config["_class_name"]]
        sides = [{"encoder_hidden_states": out[i], pooled: out[i + 2]} for i in (0, 1)]
    else:
        sides = [{"encoder_hidden_states": out[i], MASK: out[i + 1]} for i in (0, 2)]
    kept = [{name: value.float().cpu() for name, value in side.items() if value is not None} for side in sides]
    return kept[0], kept[1]
