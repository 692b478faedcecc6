"""Low-rank adapters (LoRA), added to the weights before anything is quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_pipeline import SD3LoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from torch import Tensor, nn

from dq_toolchain.toolchain.architectures import ARCHITECTURES
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.files import read_tensors, sha256

REMEDY = "--lora takes one safetensors file"
ENCODERS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Lora:
    """``file`` with adapters of the network, and perhaps of the text encoders; ``scale`` multiplies what they add."""

    file: Path
    scale: float = 1.0

    @property
    def digest(self) -> str:
        return f"{sha256(self.file)} {self.scale}"


def fuse_into_network(network: Any, lora: Lora) -> None:
    """Add the adapters to the network's weights, in place.

    Raises:
        ModelError: the file cannot be read, or holds nothing for this network.
    """
    state, scales = _state_of(network, lora)
    part = ARCHITECTURES[type(network).__name__].part
    names = set(network.state_dict())
    try:
        if part == "unet":
            StableDiffusionXLLoraLoaderMixin.load_lora_into_unet(state, unet=network, **scales)
        else:
            SD3LoraLoaderMixin.load_lora_into_transformer(state, network, **scales)
        if not getattr(network, "peft_config", None):
            raise ModelError(
                f"{lora.file} holds no adapter of the {part}, its tensors begin with {_beginnings(state)}; take a "
                f"LoRA of this network"
            )
        network.fuse_lora(lora_scale=lora.scale)
        network.unload_lora()
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{lora.file} does not fit the network: {' '.join(str(error).split())[:300]}; take a LoRA made for it"
        ) from error
    if set(network.state_dict()) != names:
        raise ModelError(
            f"{lora.file}: its adapters cannot be added to the weights; take a LoRA without weight decomposition or extra layers"
        )
    network.requires_grad_(False)


def fuse_into_encoders(pipeline: Any, network: nn.Module, lora: Lora) -> None:
    """Add the adapters of the text encoders, where the file has any. Raises ModelError."""
    state, scales = _state_of(network, lora)
    for name in ENCODERS:
        encoder = getattr(pipeline, name, None)
        if encoder is None or not any(key.startswith(f"{name}.") for key in state):
            continue
        try:
            StableDiffusionXLLoraLoaderMixin.load_lora_into_text_encoder(
                state, text_encoder=encoder, prefix=name, lora_scale=lora.scale, **{"network_alphas": None, **scales}
            )
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{lora.file} does not fit {name}: {' '.join(str(error).split())[:300]}; take a LoRA made for it"
            ) from error


def _state_of(network: Any, lora: Lora) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under diffusers' names, whatever tool wrote them, and what the file says of the adapters' scales."""
    read_tensors(lora.file, REMEDY)
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "return_lora_metadata": True}
    try:
        if ARCHITECTURES[type(network).__name__].part == "transformer":
            state, metadata = SD3LoraLoaderMixin.lora_state_dict(str(lora.file), **options)
            return state, {"metadata": metadata}
        state, alphas, metadata = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
            str(lora.file), unet_config=network.config, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{lora.file} is no LoRA that diffusers knows: {' '.join(str(error).split())[:300]}; {REMEDY}"
        ) from error
    return state, {"network_alphas": alphas, "metadata": metadata}


def _beginnings(state: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted({name.split(".")[0] for name in state})[:5])
