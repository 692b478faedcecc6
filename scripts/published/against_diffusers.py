"""Our FP32 rollout of a folder, and the latents of diffusers' own pipeline on the same noise, prompts and labels, step by step."""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import torch
from torch import Tensor

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.samples import Samples, held_out_seeds
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import rollout
from scripts.published.building import STORED

PROMPTS = ("a red fox", "two ships at sea")
SAMPLES = len(PROMPTS)


def ours(
    folder: Path,
    work: Path,
    steps: int,
    guidance: float,
    negative: str,
    text: bool,
    settings: Mapping[str, Mapping[str, Any]],
    notes: list[str] | None = None,
) -> tuple[Context, Samples, Tensor]:
    """Setup as a calibration makes it, held-out samples, and their latents (N+1, S, C, H, W) in FP32."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    sections: dict[str, dict[str, Any]] = {
        "model": {"path": folder}, "run": {"out": work, "device": "cpu"}, "calibrate": {"samples": 2},
        "sampler": {"steps": steps, "guidance": float(guidance)},
        "conditioning": {"prompts": work / "prompts.txt", "negative_prompt": negative} if text else {},
    }  # fmt: skip
    if (folder / STORED).is_file():
        sections["conditioning"] = {"file": folder / STORED}
    for section, values in settings.items():
        sections[section] = {**sections.get(section, {}), **values}
    context = setup(load_recipe(None, sections), None, (lambda _line: None) if notes is None else notes.append)
    samples = context.draw(held_out_seeds(SAMPLES))
    network = Denoiser(context.prepared.network, context.table, samples.conditioning, context.guidance)
    with torch.no_grad():
        return (
            context,
            samples,
            torch.stack(list(rollout(context.table, network, samples.start, noise=samples.step_noise))),
        )


@torch.no_grad()
def theirs(
    folder: Path, samples: Samples, noise: Tensor, steps: int, guidance: float, negative: str, *, clip: bool = True
) -> Tensor:
    """Latents (N, S, C, H, W) after every step of the pipeline that ``from_pretrained`` makes of the folder.

    Args:
        noise: (S, C, H, W) standard normal, which the pipeline scales itself.
    """
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        folder, local_files_only=True, torch_dtype=torch.float32, **_left_out(folder)
    )
    pipe.set_progress_bar_config(disable=True)
    if not clip:
        pipe.scheduler.register_to_config(clip_sample=False, clip_denoised=False)
    size = len(samples)
    found: list[Tensor] = []
    step = pipe.scheduler.step

    def recording(*given: Any, **named: Any) -> Any:
        result = step(*given, **named)
        found.append((result[0] if isinstance(result, tuple) else result.prev_sample)[:size].clone())
        return result

    recording.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]  # pipelines ask whether it takes eta
    pipe.scheduler.step = recording
    accepted = inspect.signature(pipe.__call__).parameters
    pixels = getattr(pipe, "vae_scale_factor", 8) * (2 if hasattr(pipe, "_unpack_latents_with_ids") else 1)
    height, width = (pixels * side for side in samples.start.shape[-2:])
    labels = samples.conditioning.cond.get("class_labels")
    given = {
        "prompt": list(PROMPTS), "negative_prompt": [negative] * size if negative else None, "guidance_scale": guidance,
        "num_inference_steps": steps, "latents": noise, "height": height, "width": width, "batch_size": size,
        "output_type": "latent" if "prompt" in accepted else "pt", "use_resolution_binning": False,
        "class_labels": None if labels is None else labels.tolist(),
    }  # fmt: skip
    if (folder / STORED).is_file():
        given |= {"prompt": None, **_stored(samples, pipe)}
    if isinstance(pipe, diffusers.ZImagePipeline):  # pos + w (pos - neg)
        given["guidance_scale"] = max(0.0, guidance - 1)
    packs = hasattr(pipe, "_pack_latents")
    if (
        "true_cfg_scale" in accepted and not pipe.transformer.config.guidance_embeds
    ):  # else guidance_scale is what it is told
        given |= {"true_cfg_scale": guidance, "negative_prompt": [negative] * size}
    with contextlib.ExitStack() as patches:
        if samples.step_noise is not None:
            drawn = [*samples.step_noise, *torch.zeros_like(samples.step_noise[:1])]
            _drawing(patches, pipe.scheduler, lambda *_, **__: drawn[len(found)])
        if "latents" not in accepted or packs:  # packed by the pipeline itself
            given["latents"] = None
            _drawing(patches, pipe, lambda *_, **__: noise)
        asked = {name: value for name, value in given.items() if name in accepted and value is not None}
        pipe(
            **({} if asked.get("prompt") else {"negative_prompt": None} if "negative_prompt" in accepted else {})
            | asked
        )
    return torch.stack([_unpacked(pipe, latents, height, width) for latents in found] if packs else found)


def _unpacked(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Latents (S, C, H, W) of a pipeline that samples tokens, by its own function."""
    if hasattr(pipe, "_unpack_latents_with_ids"):
        sides = [each // (2 * pipe.vae_scale_factor) for each in (height, width)]
        ids = pipe._prepare_latent_ids(torch.zeros(len(latents), 1, *sides))
        unpack = pipe._unpack_latents_with_ids
        asked = sides if "height" in inspect.signature(unpack).parameters else []  # others find them in the positions
        found = unpack(latents, ids, *asked)
        return torch.stack(list(found)) if isinstance(found, list) else torch.as_tensor(found)
    unpacked = torch.as_tensor(pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor))
    return unpacked.squeeze(2) if unpacked.dim() == 5 else unpacked  # Qwen-Image's are videos of one picture


def largest_error(mine: Tensor, reference: Tensor) -> float:
    """Relative error, the largest over steps; infinite if the number of steps differs or a latent is not finite."""
    if len(mine) != len(reference) or not mine.isfinite().all() or not reference.isfinite().all():
        return float("inf")
    return max(float((a - b).norm() / b.norm()) for a, b in zip(mine, reference, strict=True))


def _stored(samples: Samples, pipe: Any) -> dict[str, Any]:
    """What stands for prompts and negative prompts, and their masks under the pipeline's names."""
    given: dict[str, Any] = {}
    for side, rows in (("", samples.conditioning.cond), ("negative_", samples.conditioning.uncond)):
        states, mask = rows.get("encoder_hidden_states"), rows.get("encoder_attention_mask")
        given[f"{side}prompt_embeds"] = states
        given |= {f"{side}prompt_{name}": mask for name in ("attention_mask", "embeds_mask")}
        if states is not None and isinstance(pipe, diffusers.ZImagePipeline):  # a list, each as long as it is
            lengths = [states.shape[1]] * len(states) if mask is None else [int(own) for own in mask.sum(1)]
            given[f"{side}prompt_embeds"] = [row[:own] for row, own in zip(states, lengths, strict=True)]
    return given


def _left_out(folder: Path) -> dict[str, None]:
    """Parts that make no latents, which a small folder is without."""
    index = json.loads((folder / "model_index.json").read_text())
    unused = ("safety_checker", "feature_extractor")
    return {name: None for name, entry in index.items() if name in unused or entry == [None, None]}


def _drawing(patches: contextlib.ExitStack, thing: Any, draw: Any) -> None:
    """What draws noise for a pipeline or scheduler draws this."""
    module = sys.modules[type(thing).__module__]
    if hasattr(module, "randn_tensor"):
        patches.enter_context(mock.patch.object(module, "randn_tensor", draw))


__all__: Sequence[str] = ("PROMPTS", "largest_error", "ours", "theirs")
