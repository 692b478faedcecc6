"""Models named by their id on the Hugging Face hub: what is on this machine is used, else what is needed is downloaded.

Only JSON, text and safetensors are ever asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import list_repo_files, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dq_toolchain.toolchain.errors import ModelError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
"""owner/name, or owner/name@revision."""
VARIANT = re.compile(r"diffusion_pytorch_model\.([\w-]+?)(-\d+-of-\d+)?\.safetensors")
PARTS = (
    "unet",
    "transformer",
    "scheduler",
    "tokenizer",
    "tokenizer_2",
    "tokenizer_3",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "vae",
    "vqvae",
)
"""Folders of a pipeline that may be read; the autoencoders only for pictures."""
STEM = "diffusion_pytorch_model"
"""Of the weight files of everything that diffusers saves."""
SMALL = ("*.json", "*.txt", "*.model")


def is_hub_id(name: str) -> bool:
    return HUB_ID.fullmatch(name) is not None


def find_on_hub(name: str, variant: str | None) -> Path:
    """Folder of the model's files, from the local cache if the network is there with its weights, else downloaded.

    Raises:
        ModelError: not on this machine and not to be had; the text says why.
    """
    repo, _, revision = name.partition("@")
    try:
        folder = Path(snapshot_download(repo, revision=revision or None, local_files_only=True))
        if _has_network(folder, variant):
            return folder
    except LocalEntryNotFoundError:
        pass
    try:
        folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=_patterns(variant)))
        others = [] if _has_network(folder, variant) else list_repo_files(repo, revision=revision or None)
    except RevisionNotFoundError as error:
        raise ModelError(
            f"--model: {repo} has no revision {revision!r}; take one that its page lists, or leave it out"
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"--model: {repo} asks for consent; accept its terms on its page, run `hf auth login`, and try again"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"--model: the hub has no {repo}, or keeps it private; check the name, or run `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(
            f"--model: {name} is not on this machine and cannot be downloaded ({_first_line(error)}); connect to the "
            f"network once, or "
            "give the folder that it was saved to"
        ) from error
    if others:
        raise ModelError(f"--model: {repo} has no {_tail(variant)}.safetensors for its network; {_remedy(others)}")
    return folder


def _has_network(folder: Path, variant: str | None) -> bool:
    """Weights of that variant are there; which files exactly is for the loader to say."""
    tail = _tail(variant)
    found = [path.name for part in ("unet", "transformer", ".") for path in (folder / part).glob(f"{STEM}*.safetensors")]
    return any(name == f"{tail}.safetensors" or name.startswith(f"{tail}-") for name in found)


def _tail(variant: str | None) -> str:
    return STEM if variant is None else f"{STEM}.{variant}"


def _remedy(files: Iterable[str]) -> str:
    """What the repository's weight files allow instead."""
    weights = [name.rpartition("/")[2] for name in files if name.split("/")[0] in PARTS[:2] or "/" not in name]
    variants = {found[1] for name in weights if (found := VARIANT.fullmatch(name))}
    if variants:
        return f"add --variant {' or --variant '.join(sorted(variants))}"
    return "only weights that diffusers saved as safetensors are read; take another model, or save it so"


def _patterns(variant: str | None) -> list[str]:
    tail = "" if variant is None else f".{variant}"
    weights = [
        f"{stem}{tail}{shard}.safetensors" for stem in (STEM, "model") for shard in ("", "-*-of-*")
    ]
    found = [
        "model_index.json",
        "config.json",
        "scheduler_config.json",
        *weights,
        f"{STEM}.safetensors.index*.json",
    ]
    return found + [f"{part}/{name}" for part in PARTS for name in (*SMALL, *weights)]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
