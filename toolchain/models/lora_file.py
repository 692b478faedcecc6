"""A LoRA file taken apart: what each of its tensors adds to which layer of which part. What adds anything else is refused.

Names are diffusers' affair, whatever tool wrote the file: its converters give them. The sums are made here, since a tensor
that no layer takes must not go unnoticed, and an adapter without alpha must not get another one's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.loaders.lora_pipeline import SD3LoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from diffusers.utils.state_dict_utils import StateDictType
from peft.utils.other import get_pattern_key
from torch import Tensor

from dq_toolchain.toolchain.disk.files import read_tensors_and_metadata
from dq_toolchain.toolchain.errors import ModelError

REMEDY = "--lora takes one safetensors file"
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
OTHER_KINDS = {
    "dora_scale": "DoRA (weight decomposition)",
    "lora_magnitude_vector": "DoRA (weight decomposition)",
    "hada_": "a LoHa adapter",
    "lokr_": "a LoKr adapter",
    "lora_mid": "an adapter of three factors (Tucker)",
    "oft_": "an OFT adapter",
    "on_input": "an IA3 adapter",
    "diff": "a full difference of weights",
    "diff_b": "a full difference of biases",
    "w_norm": "a trained normalization",
    "b_norm": "a trained normalization",
}
"""How tensors of other kinds of adapters are called: a part of the name, or how one begins (those that end in _)."""
DECOMPOSED = ("pissa", "olora", "corda", "loftq")
"""peft's ways to start an adapter that take something out of the weight itself."""


@dataclass(frozen=True)
class Adapter:
    """Adds ``factor * up @ down`` to a layer's weight and ``factor * bias`` to its bias.

    Attributes:
        down: (r, n, ...) float32. up: (m, r, ...) float32. bias: (m,) float32, None without.
        factor: alpha / r; alpha / sqrt(r) where the file says so; 1 for an adapter without alpha.
    """

    down: Tensor
    up: Tensor
    bias: Tensor | None
    factor: float


def read_adapters(file: Path, part: str, config: Any) -> dict[str, dict[str, Adapter]]:
    """Adapters by part and layer, as diffusers names them.

    Args:
        part: of the network, unet or transformer. config: of the network.
    Raises:
        ArtifactError: the file cannot be read.
        ModelError: a tensor in it is no part of an adapter of the network or of a text encoder, or not finite.
    """
    tensors, metadata = read_tensors_and_metadata(file, REMEDY)
    _refuse_other_kinds(file, tensors)
    state, alphas = _renamed(file, dict(tensors), part, config)
    known = (part, *ENCODERS)
    strange = sorted({name for name in state if name.split(".")[0] not in known})
    if strange or not state:
        is_kohya = part == "transformer" and any(name.startswith("lora_") for name in state)
        remedy = (
            "names of kohya-ss are read for UNets only, take a LoRA that diffusers saved"
            if is_kohya
            else "take a LoRA of this network"
        )
        raise ModelError(
            f"{file} holds no adapters of the {part} and of text encoders only: its tensors begin with "
            f"{', '.join(sorted({name.split('.')[0] for name in state})[:5]) or 'nothing'}; {remedy}"
        )
    settings = _settings(file, metadata)
    return {
        name: _adapters(file, _of(name, state), _of(name, alphas), _of(name, settings))
        for name in known
        if any(key.startswith(f"{name}.") for key in state)
    }


def _refuse_other_kinds(file: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        for piece in name.split("."):
            kind = next((k for k in OTHER_KINDS if piece == k or (k.endswith("_") and piece.startswith(k))), None)
            if kind is not None:
                raise ModelError(
                    f"{file}: {name!r} belongs to {OTHER_KINDS[kind]}, which is not supported; take a plain LoRA, "
                    "or a model that it was merged into"
                )
        if not tensor.is_floating_point() or not torch.isfinite(tensor.float()).all():
            raise ModelError(f"{file}: {name!r} holds NaN, infinity or whole numbers; take another LoRA")


def _renamed(
    file: Path, tensors: dict[str, Tensor], part: str, config: Any
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors and alphas under diffusers' names; no tensor is lost on the way."""
    count = sum(not name.endswith(".alpha") for name in tensors)
    found: Mapping[str, Any] | None = None
    try:
        if part == "transformer":
            state: dict[str, Tensor] = SD3LoraLoaderMixin.lora_state_dict(tensors)
        else:
            state, found = StableDiffusionXLLoraLoaderMixin.lora_state_dict(tensors, unet_config=config)
        alphas = {name.removesuffix(".alpha"): float(value) for name, value in (found or {}).items()}
        alphas |= {n.removesuffix(".alpha"): float(state[n]) for n in list(state) if n.endswith(".alpha")}
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{file} is no LoRA that diffusers knows: {' '.join(str(error).split())[:300]}; {REMEDY}"
        ) from error
    state = {name: tensor for name, tensor in state.items() if not name.endswith(".alpha")}
    if len(state) != count:
        raise ModelError(
            f"{file}: diffusers leaves {count - len(state)} of its {count} tensors out (names of two tools are mixed); {REMEDY}"
        )
    return state, alphas


def _of(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to a part, without its name."""
    return {key.removeprefix(f"{part}."): value for key, value in values.items() if key.startswith(f"{part}.")}


def _settings(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What diffusers writes of peft's settings, such as ``unet.lora_alpha``; empty where another tool wrote the file."""
    try:
        found = json.loads(metadata.get(LORA_ADAPTER_METADATA_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}: its {LORA_ADAPTER_METADATA_KEY} is not valid JSON; {REMEDY}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file}: its {LORA_ADAPTER_METADATA_KEY} is no JSON object; {REMEDY}")
    return found


def _adapters(
    file: Path, state: Mapping[str, Tensor], alphas: Mapping[str, float], settings: Mapping[str, Any]
) -> dict[str, Adapter]:
    """Adapters of one part by layer."""
    start = str(settings.get("init_lora_weights"))
    if settings.get("use_dora") or start.lower().startswith(DECOMPOSED):
        what = "DoRA" if settings.get("use_dora") else start
        raise ModelError(
            f"{file}: its adapters were trained with {what}, which changes the weights themselves and is not supported; take a "
            "plain LoRA"
        )
    pieces: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _peft_names(state).items():
        layer, _, piece = name.rpartition(".lora_")
        if piece not in ("A.weight", "B.weight", "B.bias"):
            raise ModelError(
                f"{file}: {name!r} is no tensor of a LoRA that is known; {REMEDY} as diffusers or kohya-ss write it"
            )
        pieces.setdefault(layer, {})[piece] = tensor.float()
    alpha_of = {name.removesuffix(".lora_A.weight"): value for name, value in _peft_names(alphas).items()}
    unused = sorted(set(alpha_of) - set(pieces))
    if unused:
        raise ModelError(f"{file}: alpha of {unused[0]!r} has no adapter beside it; {REMEDY}")
    found = {}
    for layer, factors in pieces.items():
        down, up = factors.get("A.weight"), factors.get("B.weight")
        if down is None or up is None or down.dim() < 2 or up.dim() < 2 or not 1 <= down.shape[0] == up.shape[1]:
            shapes = {name: tuple(tensor.shape) for name, tensor in factors.items()}
            raise ModelError(
                f"{file}: the adapter of {layer!r} has {shapes}, allowed are two factors of one rank; {REMEDY}"
            )
        alpha = alpha_of.get(layer)
        factor = _factor(file, layer, down.shape[0], settings) if alpha is None else alpha / down.shape[0]
        found[layer] = Adapter(down, up, factors.get("B.bias"), factor)
    return found


def _factor(file: Path, layer: str, rank: int, settings: Mapping[str, Any]) -> float:
    """Of an adapter without alpha of its own: from peft's settings, 1 without."""
    if "lora_alpha" not in settings:
        return 1.0
    pattern = settings.get("alpha_pattern") or {}
    try:
        alpha = float(pattern.get(get_pattern_key(list(pattern), layer), settings["lora_alpha"]))
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{file}: lora_alpha in its metadata is no number; {REMEDY}") from error
    if not math.isfinite(alpha):
        raise ModelError(f"{file}: lora_alpha in its metadata is {alpha}, allowed are finite numbers; {REMEDY}")
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _peft_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """``to_q_lora.down.weight`` and its like of networks and encoders as ``to_q.lora_A.weight``."""
    names = values
    if any(".self_attn." in name or ".mlp." in name for name in names):
        names = convert_state_dict_to_peft(names, original_type=StateDictType.DIFFUSERS_OLD)
    found: dict[str, Any] = convert_unet_state_dict_to_peft(names)
    return found
