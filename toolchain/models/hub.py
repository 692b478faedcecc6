"""Models named by their id on the Hugging Face hub: what is on this machine is used, else what is needed is downloaded.

Only JSON, text and safetensors are ever asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import list_repo_files, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dq_toolchain.toolchain.errors import ModelError

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
"""owner/name, or owner/name@revision."""
WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".sft")
WEIGHT = re.compile(r"(?P<stem>\w+)(\.(?P<variant>[\w-]+?))?(?P<shard>-\d+-of-\d+)?\.safetensors")
SHARD = re.compile(r"-(\d+)-of-(\d+)\.")
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
SMALL = (".json", ".txt", ".model")
CONFIGS = (
    "model_index.json", "config.json", "scheduler_config.json", "scheduler/*.json", *(f"{part}/config.json" for part in PARTS),
)  # fmt: skip
"""What decides whether a model can be taken, and how."""
NO_ANSWER: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    *(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"),
)
"""What the library raises, and its HTTP client: which client that is depends on the library's release."""
TOP = (
    "model_index.json",
    "config.json",
    "scheduler_config.json",
    f"{STEM}.safetensors.index.json",
    f"{STEM}.safetensors.index.fp16.json",
)
NETWORKS = (*(f"{part}/config.json" for part in PARTS[:2]), "config.json")


def is_hub_id(name: str) -> bool:
    """Whether it can only be an id: no path by its first letter, no weight file by its last."""
    return HUB_ID.fullmatch(name) is not None and not name.lower().endswith(WEIGHT_SUFFIXES)


@dataclass(frozen=True)
class Remote:
    """A model on the hub, not or not wholly on this machine. ``files``: all that it has there. ``commit``: of what was seen."""

    repo: str
    commit: str
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.repo}@{self.commit}"


def find_on_hub(name: str, variant: str | None) -> Path:
    """Folder of the model's files, from the local cache if the network is there with its weights, else downloaded.

    Raises:
        ModelError: not on this machine and not to be had; the text says why.
    """
    folder, remote = find_configs(name, variant)
    return folder if remote is None else download(remote, variant)


def find_configs(name: str, variant: str | None) -> tuple[Path, Remote | None]:
    """Folder of the model's files; unless its weights are on this machine, only of the configs, which are downloaded, and the rest.

    Raises:
        ModelError: not on this machine and not to be had; the text says why.
    """
    repo, _, revision = name.partition("@")
    try:
        # by patterns: without, the library asks that all of the repository is there
        folder = Path(
            snapshot_download(repo, revision=revision or None, allow_patterns=list(CONFIGS), local_files_only=True)
        )
        if _is_complete(folder, variant):
            return folder, None
    except LocalEntryNotFoundError:
        pass
    with _refusals(name):
        folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=list(CONFIGS)))
        remote = Remote(repo, folder.name, tuple(list_repo_files(repo, revision=folder.name)))
    if not any(name in remote.files for name in NETWORKS):
        raise ModelError(f"--model: {repo} has none of {', '.join(NETWORKS)}; {_what_instead(remote.files)}")
    return folder, remote


def check_weights(remote: Remote, variant: str | None) -> None:
    """Raise ModelError unless the hub has the network's weights in that variant."""
    if not any(_is_weight(PurePosixPath(file).name, STEM, variant) for file in _network_files(remote.files)):
        raise ModelError(
            f"--model: {remote.repo} has no {_tail(variant)}.safetensors for its network; {_remedy(remote.files, variant)}"
        )


def download(remote: Remote, variant: str | None) -> Path:
    """Folder with everything that the model needs. Raises ModelError."""
    check_weights(remote, variant)
    wanted = [
        file
        for file in remote.files
        if file.rpartition("/")[0] in ("", *PARTS) and (file.endswith(SMALL) if "/" in file else file in TOP)
    ]
    for part in ("", *PARTS):
        wanted += _weights_of(part, remote.files, variant)
    with _refusals(remote.name):
        return Path(snapshot_download(remote.repo, revision=remote.commit, allow_patterns=wanted))


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """What the hub answers, in one line of ours."""
    repo, _, revision = name.partition("@")
    try:
        yield
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
    except NO_ANSWER as error:
        raise ModelError(
            f"--model: {name} is not on this machine and cannot be downloaded ({_first_line(error)}); connect to the "
            f"network once, or "
            "give the folder that it was saved to"
        ) from error


def _is_complete(folder: Path, variant: str | None) -> bool:
    """The network's weights are there, and each text encoder has some; which files exactly is for their loaders to say."""
    there = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    network = [
        PurePosixPath(file).name
        for file in _network_files(there)
        if _is_weight(PurePosixPath(file).name, STEM, variant)
    ]
    encoders = [part for part in PARTS if part.startswith("text_encoder") and f"{part}/config.json" in there]
    return _has_all(network) and all(
        _has_all(
            [
                PurePosixPath(file).name
                for file in there
                if file.startswith(f"{part}/") and file.endswith(".safetensors")
            ]
        )
        for part in encoders
    )


def _has_all(weights: Sequence[str]) -> bool:
    """One whole file, or as many shards as their names count."""
    counts = [SHARD.search(name) for name in weights]
    return any(count is None for count in counts) or any(
        len({other[0] for other in counts if other is not None and other[2] == count[2]}) == int(count[2])
        for count in counts
        if count is not None
    )


def _network_files(files: Iterable[str]) -> list[str]:
    return [file for file in files if file.rpartition("/")[0] in ("", *PARTS[:2])]


def _is_weight(name: str, stem: str, variant: str | None) -> bool:
    """A whole file or a shard of one in that variant; None is the plain one."""
    found = WEIGHT.fullmatch(name)
    return found is not None and found["stem"] == stem and found["variant"] == variant


def _weights_of(part: str, files: Iterable[str], variant: str | None) -> list[str]:
    """Of the variant if the part has it, else plain, else of any one; not the shards of what is there whole too."""
    names = [file for file in files if file.rpartition("/")[0] == part]
    matches = [(file, found) for file in names if (found := WEIGHT.fullmatch(file.rpartition("/")[2]))]
    there = {found["variant"] for _, found in matches}
    chosen = variant if variant in there else None if None in there else min(there, default=None)
    mine = [(file, found) for file, found in matches if found["variant"] == chosen]
    whole = [file for file, found in mine if found["shard"] is None]
    return whole or [file for file, _ in mine]


def _tail(variant: str | None) -> str:
    return STEM if variant is None else f"{STEM}.{variant}"


def _remedy(files: Iterable[str], variant: str | None) -> str:
    """What the repository's weight files allow instead."""
    found = [WEIGHT.fullmatch(file.rpartition("/")[2]) for file in _network_files(files)]
    variants = {each["variant"] for each in found if each is not None and each["stem"] == STEM} - {variant}
    if None in variants:
        return "leave --variant out"
    if variants:
        return f"add --variant {' or --variant '.join(sorted(map(str, variants)))}"
    return "only weights that diffusers saved as safetensors are read; take another model, or save it so"


def _what_instead(files: Iterable[str]) -> str:
    singles = [file for file in files if "/" not in file and file.lower().endswith(WEIGHT_SUFFIXES)]
    if singles:
        return (
            f"it holds {', '.join(singles[:3])}: download the file that you want, name it with --model, and you are told how "
            "to turn it into a folder"
        )
    return "only what diffusers saved is read; take another model"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
