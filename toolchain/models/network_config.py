"""A network's config as diffusers reads it, and within bounds: before a network is built, a weight read or downloaded.

A config is foreign data: it may lack keys (older releases), name a class that is built as another one, or ask for a network
that no memory holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from inspect import signature
from typing import Any

from dq_toolchain.toolchain.errors import ModelError

LEGACY = "Transformer2DModel"
"""The class of DiT and PixArt before diffusers 0.29; what it is built as depends on norm_type."""
LARGEST = {
    "sample_size": 2048,
    "pos_embed_max_size": 1024,
    "layers_per_block": 64,
    "transformer_layers_per_block": 64,
    "reverse_transformer_layers_per_block": 64,
    "num_layers": 256,
    "num_attention_heads": 1024,
    "block_out_channels": 65_536,
    "downsample_padding": 8,
    "conv_in_kernel": 31,
    "conv_out_kernel": 31,
}
"""Of whole numbers in a config, far above any published network's (1024, 384, 4, 10, 10, 42, 64, 1,536, 1, 3 and 3)."""
WIDEST = 2**20
"""Of every other whole number: channels, classes, widths."""
LONGEST = 64
"""Entries of a list."""
MOST_BLOCKS = 1024
"""Residual or transformer blocks of one side of a network; SDXL has 30."""
MOST_POSITIONS = 2**28
"""Numbers in a table of positions, which is computed when a transformer is built; SD 3.5 medium has 2^27.8."""


def as_built(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config under the name of the class that diffusers builds from it.

    ``Transformer2DModel`` is mapped as diffusers' loader maps it, and keys that the new class does not have are dropped as
    there. Source: diffusers, ``LegacyModelMixin.from_pretrained``.

    Args:
        where: the config's file, for the error.
    Raises:
        ModelError: a Transformer2DModel that is neither DiT nor PixArt.
    """
    if config.get("_class_name") != LEGACY:
        return dict(config)
    import diffusers
    from diffusers.models.model_loading_utils import _CLASS_REMAPPING_DICT, _fetch_remapped_cls_from_config

    norm = config.get("norm_type", defaults(LEGACY)["norm_type"])
    if not isinstance(norm, str) or norm not in _CLASS_REMAPPING_DICT[LEGACY]:
        allowed = " or ".join(f"{kind} ({name})" for kind, name in _CLASS_REMAPPING_DICT[LEGACY].items())
        raise ModelError(
            f"{where}: {LEGACY} with norm_type {str(norm)[:40]!r}, allowed is {allowed}; other networks are not supported"
        )
    name = _fetch_remapped_cls_from_config({"norm_type": norm}, diffusers.Transformer2DModel).__name__
    known = defaults(name)
    return {key: value for key, value in config.items() if key in known or key.startswith("_")} | {"_class_name": name}


@cache
def defaults(name: str) -> Mapping[str, Any]:
    """Options of a class of diffusers with their defaults."""
    import diffusers

    parameters = signature(getattr(diffusers, name).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the class's defaults where it has no key; the class is one that diffusers has."""
    return {**defaults(config["_class_name"]), **config}


def check_bounds(config: Mapping[str, Any], where: str) -> None:
    """Raise ModelError for a config from which a network should not even be built: it is named with what is allowed."""
    full = complete(config)
    known = defaults(config["_class_name"])
    for key in known:
        for value in _flat(full[key], key, where):
            limit = LARGEST.get(key, WIDEST)
            if isinstance(value, float) and not math.isfinite(value):
                raise ModelError(
                    f"{where}: {key} is {value}, allowed are finite numbers; restore the file that diffusers saved"
                )
            if isinstance(value, int | float) and abs(value) > limit:
                raise ModelError(f"{where}: {key} is {value:g}, allowed are at most {limit:,}; correct it")
    blocks = (
        _count(full.get("block_out_channels"))
        * _most(full, "layers_per_block")
        * _most(full, "transformer_layers_per_block")
    )
    blocks = max(blocks, _count(full.get("block_out_channels")) * _most(full, "reverse_transformer_layers_per_block"))
    if blocks > MOST_BLOCKS:
        raise ModelError(
            f"{where}: its layers per block make {blocks:,} blocks, allowed are {MOST_BLOCKS:,}; correct it"
        )
    if "patch_size" in known:
        side = _most(full, "sample_size") // _most(full, "patch_size")
        side = _most(full, "pos_embed_max_size") if "pos_embed_max_size" in known else side
        positions = side * side * _most(full, "num_attention_heads") * _most(full, "attention_head_dim")
        if positions > MOST_POSITIONS:
            raise ModelError(
                f"{where}: its table of positions has {positions:,} numbers, allowed are {MOST_POSITIONS:,}; correct sample_size, "
                "pos_embed_max_size, num_attention_heads or attention_head_dim"
            )


def whole(config: Mapping[str, Any], key: str, where: str, lowest: int = 1) -> int:
    """A whole number of a complete config. Raises ModelError."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ModelError(
            f"{where}: {key} is {str(value)[:60]!r}, allowed is a whole number, {lowest} at least; correct it"
        )
    return value


def _flat(value: Any, key: str, where: str, depth: int = 0) -> Iterator[Any]:
    """What a value holds, lists in it taken apart."""
    if isinstance(value, list | tuple):
        if len(value) > LONGEST or depth > 2:
            raise ModelError(f"{where}: {key} is a list of {len(value)} entries, allowed are {LONGEST}; correct it")
        for part in value:
            yield from _flat(part, key, where, depth + 1)
    else:
        yield value


def _most(config: Mapping[str, Any], key: str) -> int:
    """The largest whole number of an option, 1 at least: a value of another kind is refused where it is used."""
    return max((v for v in _flat(config.get(key), key, "") if isinstance(v, int)), default=1) or 1


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple) else 1
