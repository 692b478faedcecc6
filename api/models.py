"""What ``calibrate`` takes for a model: a path or hub id, a diffusers pipeline, or a module with scheduler and conditioning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.work.checkpoint import fingerprint
from dq_toolchain.toolchain.disk.digest import digest_of
from dq_toolchain.toolchain.disk.files import write_bytes, write_json, write_tensors
from dq_toolchain.toolchain.errors import ModelError, RecipeError, SamplerError
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.models.objects import model_of_network, model_of_pipeline
from dq_toolchain.toolchain.models.source import read_config
from dq_toolchain.toolchain.sampler.scheduler import plain

Bank = Mapping[str, Tensor]
SCHEDULER_FILE = "scheduler_config.json"


def model_in_memory(
    model: object, scheduler: object, sample_shape: Sequence[int] | None, conditioning: Bank | None
) -> Model:
    """The model of a pipeline or a module.

    Raises:
        ModelError, SamplerError: see their texts.
    """
    if isinstance(model, diffusers.DiffusionPipeline):
        if sample_shape is not None:
            raise ModelError("sample_shape: a pipeline's network has its size in its config; leave sample_shape out")
        return model_of_pipeline(model, scheduler_config(model.scheduler if scheduler is None else scheduler))
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"model: got {type(model).__name__}, allowed are a path, a hub id, a diffusers pipeline and a torch.nn.Module"
        )
    if scheduler is None:
        raise SamplerError(
            f"a module such as {type(model).__name__} comes without its sampler; give scheduler, such as diffusers' DDIMScheduler"
        )
    return model_of_network(model, scheduler_config(scheduler), sample_shape, conditioning or {})


def scheduler_config(scheduler: object) -> dict[str, Any]:
    """What an artifact says of a scheduler, or of the one in a folder. Raises SamplerError: it is none of diffusers."""
    if isinstance(scheduler, str | Path):
        path = Path(scheduler)
        return read_config(path / SCHEDULER_FILE if path.is_dir() else path)
    config = getattr(scheduler, "config", None)
    if not isinstance(config, Mapping):
        raise SamplerError(
            f"scheduler: got {type(scheduler).__name__}, allowed are schedulers of diffusers, such as DDIMScheduler()"
        )
    kept = {
        key: value.tolist() if hasattr(value, "tolist") else value
        for key, value in config.items()
        if key != "_use_default_values"
    }
    return plain(kept | {"_class_name": type(scheduler).__name__})


def scheduler_folder(out: Path, scheduler: object) -> Path | None:
    """The folder of a scheduler in the place of a model's own; one in memory is written to the output folder first."""
    if scheduler is None or isinstance(scheduler, str | Path):
        return None if scheduler is None else Path(scheduler)
    config = scheduler_config(scheduler)
    folder = out / f"scheduler-{fingerprint(config)[:16]}"
    write_json(folder / SCHEDULER_FILE, config)
    return folder


def is_module(model: object) -> bool:
    """A module of the caller's, not a pipeline."""
    return isinstance(model, nn.Module)


def checked_bank(name: str, bank: Bank, *, masks: bool = False) -> dict[str, Tensor]:
    """Rows as programs take them: float32 or int64. Raises RecipeError: something else, or no rows.

    Args:
        masks: let bool pass too, for whoever knows which keywords are masks and makes float32 of them.
    """
    found = {}
    for keyword, rows in bank.items():
        if (
            not isinstance(rows, Tensor)
            or rows.dim() == 0
            or not len(rows)
            or rows.is_complex()
            or (rows.dtype == torch.bool and not masks)
        ):
            shape = f"{rows.dtype} of shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise RecipeError(
                f"{name}[{keyword!r}]: got {shape}, allowed are floats or integers, one row per sample, one row at least"
            )
        kind = torch.float32 if rows.is_floating_point() else torch.bool if rows.dtype == torch.bool else torch.int64
        found[keyword] = rows.detach().to("cpu", kind).contiguous()
    return found


def bank_file(out: Path, conditioning: Bank, unconditional: Bank) -> Path:
    """The conditioning as a file in the output folder, named after what is in it. Raises ToolchainError."""
    tensors = {f"cond.{name}": rows for name, rows in conditioning.items()}
    tensors |= {f"uncond.{name}": rows for name, rows in unconditional.items()}
    path = out / f"conditioning-{digest_of(tensors)[:16]}.safetensors"
    write_tensors(path, tensors)
    return path


def prompts_file(out: Path, prompts: Sequence[str]) -> Path:
    """The prompts as a file in the output folder. Raises RecipeError: one is no line of text. ToolchainError: cannot write."""
    for prompt in prompts:
        if not isinstance(prompt, str) or len(prompt.splitlines()) != 1 or prompt.strip().startswith("#"):
            raise RecipeError(
                f"prompts: got {str(prompt)[:60]!r}, allowed are lines of text that do not begin with #; take the line breaks out"
            )
    path = out / "prompts.txt"
    write_bytes(path, "".join(f"{prompt}\n" for prompt in prompts).encode())
    return path
