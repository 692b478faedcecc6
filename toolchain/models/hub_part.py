"""One part of a model on the Hugging Face hub, such as its autoencoder, without the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import list_repo_files, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.hub import STEM

NO_ANSWER: tuple[Any, ...] = (*HfHubHTTPError.__bases__, OSError, ValueError)
"""What the library's HTTP client raises, whichever client it is."""


def find_part_on_hub(name: str, parts: Sequence[str], option: str) -> Path:
    """Folder of a model's files with one of the parts in it, or of a model that is such a part itself.

    What is on this machine is used, in whatever variant; else the plain weights are downloaded, or, without any, all variants.

    Args:
        parts: names of folders. option: the flag that ``name`` was given with.
    Raises:
        ModelError: not on this machine and not to be had, or the model has none of the parts.
    """
    repo, _, revision = name.partition("@")
    try:
        folder = Path(snapshot_download(repo, revision=revision or None, local_files_only=True))
        there = [str(path.relative_to(folder)) for path in folder.rglob("*")]
        if wanted_of(there, parts):
            return folder
    except (LocalEntryNotFoundError, *NO_ANSWER):
        pass
    try:
        wanted = wanted_of(list_repo_files(repo, revision=revision or None), parts)
        if not wanted:
            names = " or ".join(f"{part}/" for part in parts)
            raise ModelError(f"{option}: {repo} has no {names} with safetensors; take another model")
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=wanted))
    except NO_ANSWER as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(
            f"{option}: {name} is not on this machine and cannot be downloaded ({reason}); connect to the network once, or give "
            "the folder that it was saved to"
        ) from error


def wanted_of(files: Sequence[str], parts: Sequence[str]) -> list[str]:
    """Files of the first part that has a config and weights; empty if none has."""
    for prefix in (*(f"{part}/" for part in parts), ""):
        names = [file for file in files if file.startswith(prefix) and "/" not in file.removeprefix(prefix)]
        weights = [file for file in names if file.startswith(f"{prefix}{STEM}") and file.endswith(".safetensors")]
        plain = f"{prefix}{STEM}.safetensors"
        if f"{prefix}config.json" in names and weights:
            indices = [file for file in names if file.startswith(plain) and file.endswith(".json")]
            return [f"{prefix}config.json", *([plain] if plain in weights else weights + indices)]
    return []
