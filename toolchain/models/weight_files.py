"""The weight files of a network: which they are, that they are whole, and their tensors under the names that diffusers uses now.

Only safetensors are read, never a pickle. A file's header says what it must hold: one that was cut short, or is a page or a
pointer saved in its place, is recognised before anything else of it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from dq_toolchain.toolchain.disk.reading import read_json
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.hub import STEM

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dq_toolchain.toolchain.disk.spill import Spill

AGAIN = "download it again"
SAVE = "only safetensors are read, save the model with save_pretrained(safe_serialization=True)"
POINTER = b"version https://git-lfs"
PICKLES = (b"PK\x03\x04", b"\x80")
LARGEST_HEADER = 100_000_000
"""Bytes; safetensors' own limit."""
FLOAT = 4


@dataclass(frozen=True)
class State:
    """``tensors`` by the network's names. ``in_pages``: of each, whether it lies in pages of a file, which the system can drop."""

    tensors: dict[str, Tensor]
    in_pages: dict[str, bool]


def find_weights(folder: Path, variant: str | None) -> tuple[Path, ...]:
    """The one file, or those that an index lists; all there. Raises ModelError."""
    tail = "" if variant is None else f".{variant}"
    whole = folder / f"{STEM}{tail}.safetensors"
    if whole.is_file():
        return (whole,)
    index = next((path for path in _indexes(folder, tail) if path.is_file()), None)
    if index is not None:
        return _shards(index)
    there = sorted(path.name for path in folder.glob(f"{STEM}*"))
    hint = f"there are {', '.join(there)[:300]}; " if there else ""
    variants = sorted(
        {name.split(".")[1].split("-")[0] for name in there if name.endswith(".safetensors") and name.count(".") > 1}
    )
    remedy = (
        f"add --variant {variants[0]}"
        if variants
        else "leave --variant out"
        if variant is not None and f"{STEM}.safetensors" in there
        else SAVE
    )
    raise ModelError(f"cannot read {whole}: no such file; {hint}{remedy}")


def check_whole(path: Path) -> None:
    """Raise ModelError unless the file is all that its header promises; nothing but the header is read."""
    try:
        with safe_open(str(path), framework="numpy"):
            return
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {_what_it_is(path) or ' '.join(str(error).split())[:200]}") from error


def read_state(
    files: tuple[Path, ...],
    network: nn.Module,
    kept: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    spill: Spill | None = None,
) -> State:
    """The network's parameters and persistent buffers in float32, under its own names.

    Names of before diffusers 0.17 (``query``, ``key``, ``value``, ``proj_attn`` of attention) are mapped as diffusers does on
    loading. Names, shapes and types are compared before any data is read.

    Args:
        kept: takes away names that the network is without.
        spill: where tensors of other types go when they are widened; None: into memory.
    Raises:
        ModelError: a file is damaged, or does not fit the network; the text names file and tensor.
        ToolchainError: the disk has no room for the spill.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    saved: dict[str, tuple[Path, tuple[int, ...]]] = {}
    types: dict[str, str] = {}
    for file in files:
        for name, (shape, type_) in _header(file).items():
            if name in saved:
                raise _misfit(file, "tensors of one name", name)
            saved[name], types[name] = (file, shape), type_
    names = kept(_names_now(network, saved))
    for name, old in names.items():
        if name not in expected:
            raise _misfit(saved[old][0], "a tensor that the network lacks", old)
        if expected[name] != saved[old][1]:
            raise _misfit(saved[old][0], f"a shape, {list(saved[old][1])} for {list(expected[name])}", old)
    missing = sorted(set(expected) - set(names))
    if missing:
        raise _misfit(files[0], f"{len(missing)} missing tensor{'s' * (len(missing) > 1)}", missing[0])
    now = {old: name for name, old in names.items()}
    narrow = {old for old in now if types[old] != "F32"}
    if spill is not None:
        spill.require(sum(FLOAT * math.prod(saved[old][1]) for old in narrow))
    tensors = {now[old]: tensor for file in files for old, tensor in _tensors(file, now, spill)}
    return State(tensors, {now[old]: spill is not None or old not in narrow for old in now})


def _names_now(network: nn.Module, saved: Mapping[str, tuple[Path, Any]]) -> dict[str, str]:
    """name of today -> name in the file."""
    names: dict[str, Any] = {name: name for name in saved}
    network._fix_state_dict_keys_on_load(names)  # type: ignore[operator]
    if len(names) != len(saved):
        lost = next(name for name in saved if name not in names.values())
        raise _misfit(saved[lost][0], "one tensor under an old name and a new one", lost)
    return names


def _indexes(folder: Path, tail: str) -> tuple[Path, ...]:
    """Where diffusers keeps it, and where releases before 0.30 kept a variant's."""
    return (
        folder / f"{STEM}.safetensors.index{tail}.json",
        folder / f"{STEM}.safetensors{tail}.index.json",
        folder / f"{STEM}{tail}.safetensors.index.json",
    )


def _shards(index: Path) -> tuple[Path, ...]:
    listed = read_json(index, error=ModelError, remedy="restore the file that diffusers saved").get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise ModelError(
            f"{index}: weight_map does not list safetensors files beside it; restore the file that diffusers saved"
        )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"{index.parent} is incomplete: {len(names) - len(missing)} of {len(names)} weight files are there, missing "
            f"{', '.join(missing)[:300]}; download them again"
        )
    return tuple(index.parent / name for name in names)


def _header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shapes and types by name. Raises ModelError: damaged, or a tensor that is no float."""
    check_whole(path)
    found = {}
    with safe_open(str(path), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            part = file.get_slice(name)
            if part.get_dtype()[:2] not in ("F1", "F3", "F6", "F8", "BF"):
                raise ModelError(
                    f"{path}: {name!r} is of type {part.get_dtype()}, allowed are floats; take weights that are not quantized yet"
                )
            found[name] = tuple(part.get_shape()), part.get_dtype()
    return found


def _tensors(path: Path, wanted: Collection[str], spill: Spill | None) -> Iterator[tuple[str, Tensor]]:
    """Those of type float32 in the pages of the file itself."""
    import torch

    with safe_open(str(path), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            tensor, check = file.get_tensor(name), partial(_check_finite, f"{path}: {name!r}")
            if spill is not None and name in wanted and tensor.dtype != torch.float32:
                yield name, spill.keep(tensor, torch.float32, check)
                continue
            tensor = tensor.float()
            check(tensor)
            if name in wanted:
                yield name, tensor


def _check_finite(what: str, values: Tensor) -> None:
    if not values.isfinite().all():
        raise ModelError(f"{what} holds NaN or infinity, allowed are finite weights; take another checkpoint")


def _misfit(path: Path, what: str, name: str) -> ModelError:
    return ModelError(
        f"{path} does not fit {path.parent.name}/config.json: {what}, first {name[:200]!r}; take both from one model"
    )


def _what_it_is(path: Path) -> str | None:
    """Of a file that is no whole safetensors: what it looks like, and what to do."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            begin = stream.read(512)
            length = int.from_bytes(begin[:8], "little")
            stream.seek(8)
            header = stream.read(length) if length <= min(LARGEST_HEADER, size - 8) else b""
    except OSError:
        return None
    if begin.startswith(POINTER):
        return f"it is incomplete, a git-LFS pointer in place of the weights; {AGAIN}, with `git lfs pull`"
    if begin.lstrip()[:1] == b"<":
        return f"it is incomplete, a web page saved in place of the weights; {AGAIN}, from the model's page with `hf download`"
    if begin.startswith(PICKLES):
        return f"it is a pickle under another name; {SAVE}"
    if size < 8 or (length <= LARGEST_HEADER and begin[8:9] in (b"{", b"") and size < 8 + length):
        return f"it is incomplete, {size:,} bytes are there and not even its header is whole; {AGAIN}"
    try:
        needed = (
            8
            + length
            + max(part["data_offsets"][1] for name, part in json.loads(header).items() if name != "__metadata__")
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"it is no safetensors file; {SAVE}"
    return f"it is incomplete, {size:,} of {needed:,} bytes are there; {AGAIN}" if size < needed else None
