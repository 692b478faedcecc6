"""Parts of a pipeline beside the network (text encoders, autoencoder): weights in the variant that is there, read whole or refused.

What a library would begin at random because a file lacks it is not taken: pictures and prompts made with it are noise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dq_toolchain.toolchain.console.quiet import unheard
from dq_toolchain.toolchain.disk.reading import read_json, reason
from dq_toolchain.toolchain.errors import ModelError

PRECISE = ("fp32", "fp16", "bf16")
"""Variants in the order in which they are taken; the weights without variant come first, others last."""
DEEPEST = 1000
"""Layers of a part."""
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the libraries raise on a part that does not make sense."""
ADAPTERS = "adapter_config.json"
"""transformers would follow it to a model elsewhere."""


@dataclass(frozen=True)
class Weights:
    """Weight files of a part; ``variant`` None is the plain one."""

    variant: str | None
    files: tuple[Path, ...]


def find_weights(folder: Path, stem: str) -> Weights:
    """The weights that are there: plain ones first, then the variant of most digits; whole ones before those that lack a shard.

    Args:
        stem: what the files' names begin with, "model" (transformers) or "diffusion_pytorch_model" (diffusers).
    Raises:
        ModelError: there are none, or those that are there are not whole; the text names the file.
    """
    pattern = re.compile(rf"{stem}(?:\.([\w-]+))?\.safetensors(?:\.index(?:\.([\w-]+))?\.json)?")
    found: dict[str | None, tuple[Path, ...]] = {}
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in names:  # a whole file sorts before the index of the same variant
        match = pattern.fullmatch(name)
        if match is None or re.search(r"-\d+-of-\d+$", match[1] or ""):
            continue
        variant = match[1] or match[2]
        found.setdefault(variant, _shards(folder / name) if name.endswith(".json") else (folder / name,))
    if not found:
        there = ", ".join(name for name in names if name.startswith((stem, "pytorch_model"))) or "none"
        raise ModelError(
            f"cannot read {folder / stem}.safetensors: no such file (weights there: {there}); only safetensors are read, download "
            "the part again or save the model with save_pretrained(safe_serialization=True)"
        )
    order = [variant for variant in (None, *PRECISE, *sorted(filter(None, found))) if variant in found]
    whole = next((v for v in order if all(file.is_file() for file in found[v])), order[0])
    for file in found[whole]:
        require_whole(file)
    return Weights(whole, found[whole])


def require_whole(file: Path) -> None:
    """Raise ModelError unless the file is safetensors to its end."""
    try:
        with safe_open(str(file), framework="pt"):
            return
    except (OSError, SafetensorError, ValueError) as error:
        is_pointer = file.is_file() and file.open("rb").read(40).startswith(b"version https://git-lfs")
        what = "a pointer of git-lfs, not the weights" if is_pointer else reason(error)
        raise ModelError(f"cannot read {file}: it is incomplete ({what}); download it again") from error


def load_part(kind: Any, folder: Path, stem: str, warn: Callable[[str], None] = lambda _line: None) -> Any:
    """A part in float32, eval mode, gradients off.

    Args:
        kind: its class, of transformers or diffusers. warn: is told of weights that the class does not use.
    Raises:
        ModelError: weights are missing, damaged, of another shape or not finite; the text names the first.
    """
    weights = find_weights(folder, stem)
    if (folder / ADAPTERS).exists():
        raise ModelError(
            f"{folder / ADAPTERS}: weights to be added to those of another model are not read; merge them and save the part"
        )
    _require_size(kind, folder, weights)
    try:
        with unheard():  # what the libraries would warn of is refused here
            part, info = kind.from_pretrained(
                folder, variant=weights.variant, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32,
                ignore_mismatched_sizes=True, low_cpu_mem_usage=False, output_loading_info=True,
            )  # fmt: skip
    except FAULTS as error:
        raise _unreadable(kind, folder, error) from error
    files = weights.files[0].name + (f" and {len(weights.files) - 1} more" if len(weights.files) > 1 else "")
    faults = (
        sorted(info["missing_keys"]) + sorted(str(key[0]) for key in info["mismatched_keys"]) + list(info["error_msgs"])
    )
    if faults:
        raise ModelError(
            f"{folder}: {len(faults)} weights that {kind.__name__} needs are missing from {files} or of another shape, first "
            f"{faults[0]!r}; take config.json and weights from one model"
        )
    if info["unexpected_keys"]:
        extra = sorted(info["unexpected_keys"])
        warn(
            f"{folder.name}: {len(extra)} weights in {files} are left out, {kind.__name__} has no place for them, first "
            f"{extra[0]!r}"
        )
    wrong = next((name for name, value in part.state_dict().items() if not torch.isfinite(value).all()), None)
    if wrong is not None:
        raise ModelError(
            f"{folder}: {wrong!r} holds NaN or infinity, allowed are finite weights; take another checkpoint"
        )
    return part.eval().requires_grad_(False)


def _require_size(kind: Any, folder: Path, weights: Weights) -> None:
    """Refuse a config that describes more than the files hold, before its memory is taken; tied weights explain twice over."""
    held = sum(tensor_sizes(weights))
    config = read_json(folder / "config.json", error=ModelError, remedy="download it again", finite=False)
    depths = {key: value for key, value in config.items() if key.endswith("layers") and isinstance(value, int)}
    deep = next((key for key, value in depths.items() if value > DEEPEST), None)
    if deep is not None:
        raise ModelError(
            f"{folder / 'config.json'}: {deep} is {config[deep]}, allowed are at most {DEEPEST}; restore the file"
        )
    try:
        with unheard(), torch.device("meta"):
            empty = (
                kind(kind.config_class.from_pretrained(folder))
                if hasattr(kind, "config_class")
                else kind.from_config(config)
            )
    except FAULTS as error:
        raise _unreadable(kind, folder, error) from error
    described = sum(parameter.numel() for parameter in empty.parameters())
    if described > 2 * held:
        raise ModelError(
            f"{folder}: config.json describes {kind.__name__} with {described:,} numbers, {weights.files[0].name} holds {held:,}; "
            "take config.json and weights from one model"
        )


def tensor_sizes(weights: Weights) -> list[int]:
    """Numbers in each tensor, without reading them."""
    found = []
    for file in weights.files:
        with safe_open(str(file), framework="pt") as opened:
            found += [math.prod(opened.get_slice(name).get_shape()) for name in opened.keys()]  # noqa: SIM118
    return found


def _unreadable(kind: Any, folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{folder} cannot be read as {kind.__name__}: {' '.join(str(error).split())[:300]}; take config.json and weights from one "
        "model"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    remedy = "download it again"
    listed = read_json(index, error=ModelError, remedy=remedy, finite=False).get("weight_map")
    names = sorted(map(str, listed.values())) if isinstance(listed, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise ModelError(f"{index}: weight_map does not list files beside it; {remedy}")
    return tuple(index.parent / name for name in dict.fromkeys(names))
