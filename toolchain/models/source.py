"""Where the parts of a model lie: what --model names, a folder that diffusers saved or an id on the hub, taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dq_toolchain.toolchain.disk.reading import read_json
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architectures import ARCHITECTURES, DISTILLED, inputs_of, latent_shape
from dq_toolchain.toolchain.models.embedded import EMBEDDED
from dq_toolchain.toolchain.models.hub import (
    PARTS,
    WEIGHT_SUFFIXES,
    Remote,
    check_weights,
    download,
    find_configs,
    is_hub_id,
)
from dq_toolchain.toolchain.models.network_config import LEGACY, as_built, check_bounds, complete
from dq_toolchain.toolchain.models.pipelines import check_parts, parts_in
from dq_toolchain.toolchain.models.single_file import refusal
from dq_toolchain.toolchain.models.weight_files import check_whole, find_weights

_PARTS = tuple(dict.fromkeys(architecture.part for architecture in ARCHITECTURES.values()))
WANTED = {"_class_name": "the name of a pipeline's class"}


@dataclass(frozen=True)
class Source:
    """Attributes:
    id: how the model is named.
    folder: the pipeline's folder, or the network's own.
    network: folder with ``config.json`` and weights.
    config: of the network, under the name of the class that is built from it, with that class's defaults where it lacks a key.
    scheduler_config: of the sampler, as its file has it.
    weights: its safetensors files, more than one if it is sharded; none yet while they are only on the hub.
    remote: where the hub has them then. variant: of the weights.
    """

    id: str
    folder: Path
    network: Path
    config: dict[str, Any]
    scheduler_config: dict[str, Any]
    weights: tuple[Path, ...]
    remote: Remote | None = None
    variant: str | None = None

    @property
    def is_pipeline(self) -> bool:
        return (self.folder / "model_index.json").is_file()


def find_model(name: str | Path | None, variant: str | None = None, scheduler: Path | None = None) -> Source:
    """What ``name`` stands for; None is the embedded digits model.

    All that configs decide is decided here: no weight is read, hashed or downloaded. Of a hub id whose weights are not on this
    machine only configs are fetched.

    Args:
        name: folder of a pipeline (``unet/`` or ``transformer/``, ``scheduler/``) or of a bare network, or a hub id.
        variant: of the weights, such as fp16.
        scheduler: folder or file with a ``scheduler_config.json``, in the place of the model's own.
    Raises:
        ModelError: something is missing, damaged or of an unsupported kind; the text names the file.
    """
    folder, remote = _folder_of(name, variant)
    network = _network_folder(folder)
    config = _network_config(folder, network)
    scheduler_config = _scheduler_config(folder, scheduler)
    if remote is not None:
        check_weights(remote, variant)
    weights = _weight_files(network, variant) if remote is None else ()
    identity = "digits (embedded)" if folder == EMBEDDED else _name_of(name, folder)
    return Source(identity, folder, network, config, scheduler_config, weights, remote, variant)


def with_weights(source: Source) -> Source:
    """The source with its weights on this machine. Raises ModelError: they cannot be downloaded, or are damaged."""
    if source.remote is None:
        return source
    download(source.remote, source.variant)
    return replace(source, weights=_weight_files(source.network, source.variant), remote=None)


def _folder_of(name: str | Path | None, variant: str | None) -> tuple[Path, Remote | None]:
    if name is None:
        return EMBEDDED, None
    folder = Path(name)
    if folder.is_dir():
        return folder, None
    if folder.exists() or folder.name.lower().endswith(WEIGHT_SUFFIXES):
        raise refusal(folder)
    return find_configs(str(name), variant) if is_hub_id(str(name)) else (folder, None)


def _network_config(folder: Path, network: Path) -> dict[str, Any]:
    """The network's config, of a class and with options that are supported; where the pipeline's index names a class, that one."""
    path = network / "config.json"
    config = read_config(path)
    if (folder / "model_index.json").is_file():
        index = pipeline_index(folder)
        _check_pipeline(index, folder)
        library, listed = index.get(network.name) or (None, None)
        if library not in (None, "diffusers"):
            raise ModelError(
                f"{folder / 'model_index.json'}: {network.name} is of class {listed!r} from the model's own code ({library}), "
                f"which is never run; allowed are diffusers' {', '.join(ARCHITECTURES)}"
            )
        named = config["_class_name"] = config.get("_class_name") or listed
        if listed not in (None, LEGACY, named) and isinstance(named, str) and named in ARCHITECTURES:
            raise ModelError(
                f"{path}: _class_name is {str(config['_class_name'])[:60]!r}, but model_index.json says {listed!r}; correct the "
                "one that is wrong"
            )
        config |= {DISTILLED: True} if index.get("is_distilled") is True else {}
    config = as_built(config, str(path))
    kind = config.get("_class_name")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ModelError(
            f"{path}: _class_name is {str(kind)[:60]!r}, allowed are {', '.join(ARCHITECTURES)}; {_why_not(str(kind))}"
        )
    if config.get("quantization_config") is not None:
        raise ModelError(f"{path}: its weights are quantized already (quantization_config); take the original model")
    check_bounds(config, str(path))
    inputs_of(config, str(path))
    latent_shape(config, str(path))
    return complete(config)


def _check_pipeline(index: Mapping[str, Any], folder: Path) -> None:
    check_parts(parts_in(index), str(folder / "model_index.json"))
    if index.get("requires_aesthetics_score") is True:
        raise ModelError(
            f"{folder / 'model_index.json'}: a refiner (requires_aesthetics_score), which improves another model's pictures and "
            "is not supported; give the base model"
        )


def _name_of(name: str | Path | None, folder: Path) -> str:
    return folder.resolve().name if folder == Path(str(name)) else str(name)


def _network_folder(folder: Path) -> Path:
    for part in _PARTS:
        if (folder / part / "config.json").is_file():
            return folder / part
    if (folder / "config.json").is_file():
        return folder
    index = folder / "model_index.json"
    kind = pipeline_index(folder).get("_class_name") if index.is_file() else None
    if kind is not None:
        raise ModelError(
            f"{index}: a pipeline of class {str(kind)[:60]!r} without {' or '.join(_PARTS)}/config.json, allowed are those whose "
            f"network is one of {', '.join(ARCHITECTURES)}"
        )
    raise ModelError(
        f"cannot read {folder / 'unet' / 'config.json'}: {'no such file' if folder.is_dir() else 'no such folder'}; "
        f"--model takes a "
        "diffusers folder with unet/ (or transformer/) and scheduler/, the folder of a bare network, or a hub id owner/name"
    )


def _scheduler_config(folder: Path, given: Path | None) -> dict[str, Any]:
    if given is not None:
        path = given if given.is_file() else given / "scheduler_config.json"
        if not path.is_file():
            raise ModelError(
                f"cannot read {path}: no such file; --scheduler takes a folder with scheduler_config.json, or the file"
            )
        return read_config(path)
    places = [folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ModelError(
            f"cannot read {places[0]}: no such file; save the model's scheduler there, or name its folder with --scheduler"
        )
    return read_config(found)


def _weight_files(folder: Path, variant: str | None) -> tuple[Path, ...]:
    """The network's files, each whole by its header. Raises ModelError."""
    found = find_weights(folder, variant)
    for path in found:
        check_whole(path)
    return found


MISSING = {
    "HunyuanDiT2DModel": (
        "its two texts with their masks, sizes of the picture and style are inputs that no encoder here makes; take another model"
    ),
    "Lumina2Transformer2DModel": (
        "it joins each text, at its own length, with the picture, which an exported program cannot: a form of one length for all, "
        "as Z-Image has here, is missing; take another model"
    ),
}
"""Networks that are like those here and yet refused -> what is missing."""


def _why_not(kind: str) -> str:
    if kind in MISSING:
        return MISSING[kind]
    if "ControlNet" in kind:
        return "a ControlNet steers another network by extra inputs, which no exported program has; give the network itself"
    return "other networks are not supported"


def pipeline_index(folder: Path) -> Mapping[str, Any]:
    """``model_index.json`` of a pipeline's folder.

    ``_class_name`` is the pipeline's class (a string), or a list where the pipeline brings code of its own, which is never run.
    The entry of a part that this product may read (``hub.PARTS``) is its [library, class], or [None, None] or None where the
    part is left out; anything else in it is an option of the pipeline.

    Raises:
        ModelError: it cannot be read, is no JSON object, or an entry is not as above; the text names the file and the entry.
    """
    path = folder / "model_index.json"
    index = read_config(path)
    for name in (*PARTS, "_class_name"):
        value = index.get(name)
        names = value if isinstance(value, list) else []
        is_good = value is None or value == [None, None] or (len(names) == 2 and all(isinstance(n, str) for n in names))
        if not is_good and not (name == "_class_name" and isinstance(value, str)):
            raise ModelError(
                f"{path}: {name} is {str(value)[:60]!r}, allowed is {WANTED.get(name, '[library, class] or null')}; "
                "restore the file that diffusers saved"
            )
    return index


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object; -Infinity stays, which diffusers writes into configs of its schedulers. Raises ModelError."""
    there = "restore the file that diffusers saved"
    remedy = there if path.is_file() else "--model takes a diffusers folder with unet/ and scheduler/"
    return read_json(path, error=ModelError, remedy=remedy, finite=False)
