"""Where the parts of a model lie: what --model names, a folder that diffusers saved or an id on the hub, taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dq_toolchain.toolchain.architectures import ARCHITECTURES
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.hub import PARTS, STEM, find_on_hub, is_hub_id
from dq_toolchain.toolchain.reading import read_json

EMBEDDED = Path(__file__).parent / "digits"
WANTED = {"_class_name": "the name of a pipeline's class"}


@dataclass(frozen=True)
class Source:
    """Attributes:
    id: how the model is named.
    folder: the pipeline's folder, or the network's own.
    network: folder with ``config.json`` and weights.
    config, scheduler_config: of the network and of the sampler.
    weights: its safetensors files, more than one if it is sharded.
    """

    id: str
    folder: Path
    network: Path
    config: dict[str, Any]
    scheduler_config: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def is_pipeline(self) -> bool:
        return (self.folder / "model_index.json").is_file()


def find_model(name: str | Path | None, variant: str | None = None, scheduler: Path | None = None) -> Source:
    """What ``name`` stands for; None is the embedded digits model.

    Args:
        name: folder of a pipeline (``unet/`` or ``transformer/``, ``scheduler/``) or of a bare network, or a hub id.
        variant: of the weights, such as fp16.
        scheduler: folder or file with a ``scheduler_config.json``, in the place of the model's own.
    Raises:
        ModelError: something is missing, damaged or of an unsupported kind; the text names the file.
    """
    folder = _folder_of(name, variant)
    network = _network_folder(folder)
    config = read_config(network / "config.json")
    kind = config.get("_class_name")
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{network / 'config.json'}: _class_name is {kind!r}, allowed are {', '.join(ARCHITECTURES)}; "
            f"{_why_not(str(kind))}"
        )
    identity = "digits (embedded)" if folder == EMBEDDED else _name_of(name, folder)
    return Source(
        identity, folder, network, config, _scheduler_config(folder, scheduler), _weight_files(network, variant)
    )


def _folder_of(name: str | Path | None, variant: str | None) -> Path:
    if name is None:
        return EMBEDDED
    folder = Path(name)
    if folder.is_dir() or not is_hub_id(str(name)):
        return folder
    return find_on_hub(str(name), variant)


def _name_of(name: str | Path | None, folder: Path) -> str:
    return str(name) if not Path(str(name)).is_dir() else folder.resolve().name


def _network_folder(folder: Path) -> Path:
    for part in dict.fromkeys(architecture.part for architecture in ARCHITECTURES.values()):
        if (folder / part / "config.json").is_file():
            return folder / part
    if (folder / "config.json").is_file():
        return folder
    raise ModelError(
        f"cannot read {folder / 'unet' / 'config.json'}: {'no such file' if folder.is_dir() else 'no such folder'}; "
        f"--model takes a "
        "diffusers folder with unet/ (or transformer/) and scheduler/, the folder of a bare network, or a hub id owner/name"
    )


def _scheduler_config(folder: Path, given: Path | None) -> dict[str, Any]:
    if given is not None:
        return read_config(given if given.is_file() else given / "scheduler_config.json")
    places = [folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ModelError(
            f"cannot read {places[0]}: no such file; save the model's scheduler there, or name its folder with --scheduler"
        )
    return read_config(found)


def _weight_files(folder: Path, variant: str | None) -> tuple[Path, ...]:
    """The one file, or those that an index lists."""
    tail = "" if variant is None else f".{variant}"
    whole = folder / f"{STEM}{tail}.safetensors"
    if whole.is_file():
        return (whole,)
    index = folder / f"{STEM}.safetensors.index{tail}.json"
    if index.is_file():
        names = sorted(set(_mapping(read_config(index).get("weight_map"), index).values()))
        if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise ModelError(
                f"{index}: weight_map does not list files beside it; restore the file that diffusers saved"
            )
        return tuple(folder / name for name in names)
    there = sorted(path.name for path in folder.glob(f"{STEM}*"))
    hint = f"there are {', '.join(there)}; " if there else ""
    variants = sorted(
        {name.split(".")[1].split("-")[0] for name in there if name.endswith(".safetensors") and name.count(".") > 1}
    )
    remedy = (
        f"add --variant {variants[0]}"
        if variants
        else "only safetensors are read, save the model with save_pretrained(safe_serialization=True)"
    )
    raise ModelError(f"cannot read {whole}: no such file; {hint}{remedy}")


def _mapping(value: object, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ModelError(f"{path} has no weight_map; restore the file that diffusers saved")
    return value


def _why_not(kind: str) -> str:
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
        is_good = value is None or value == [None, None] or len(names) == 2 and all(isinstance(n, str) for n in names)
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
