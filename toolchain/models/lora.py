"""Low-rank adapters (LoRA), added to the weights before anything is quantized; every tensor of the file is used or named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.disk.spill import Spill
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architectures import ARCHITECTURES, without_idle
from dq_toolchain.toolchain.models.lora_file import ENCODERS, Adapter, read_adapters


@dataclass(frozen=True)
class Lora:
    """``file`` with adapters of the network, and perhaps of the text encoders; ``scale`` multiplies what they add.

    ``adapters``: how many the file has, by part (unet or transformer, text_encoder, ...); known once it has been read.
    """

    file: Path
    scale: float = 1.0
    adapters: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return f"{sha256(self.file)} {self.scale}"

    def left_out(self, encoders: Collection[str]) -> dict[str, int]:
        """Adapters of text encoders that are not among those in use."""
        return {part: n for part, n in self.adapters.items() if part in ENCODERS and part not in encoders}

    def notes(self, encoders: Collection[str], why: str) -> list[str]:
        """What a user should know of it, a line each. ``why``: reason that other encoders than ``encoders`` are not in use."""
        left_out = self.left_out(encoders).items()
        lines = [f"{self.file.name}: {n} adapters of {part} are left out, since {why}" for part, n in left_out]
        return [f"{self.file.name} adds nothing, since --lora-scale is 0", *lines] if self.scale == 0 else lines

    def record(self, encoders: Collection[str]) -> dict[str, Any]:
        """What the artifact says of it: adapters that were added, by part, and those left out."""
        left_out = self.left_out(encoders)
        return {
            "file": self.file.name,
            "sha256": sha256(self.file),
            "scale": self.scale,
            "fused": {part: n for part, n in self.adapters.items() if part not in left_out},
            "left_out": left_out,
        }


def fuse_into_network(network: Any, lora: Lora, spill: Spill | None = None) -> Lora:
    """Add the adapters to the network's weights, in place; the LoRA with what its file holds.

    Args:
        spill: where the changed weights go; None: into memory.
    Raises:
        ArtifactError: the file cannot be read.
        ModelError: it holds something else than adapters, none for this network, or some for layers that it lacks.
    """
    part = ARCHITECTURES[type(network).__name__].part
    found = read_adapters(lora.file, part, network.config)
    if part not in found:
        raise ModelError(
            f"{lora.file} holds adapters of {' and '.join(found)} only, none of the {part}; take a LoRA of this network"
        )
    config = {**network.config, "_class_name": type(network).__name__}
    adapters = without_idle(config, without_idle(config, found[part]), "_")  # names with dots, or kohya's
    _fuse(network, part, adapters, lora, spill)
    return replace(lora, adapters={name: len(adapters) for name, adapters in found.items()})


def fuse_into_encoders(pipeline: Any, network: Any, lora: Lora) -> None:
    """Add the adapters of the text encoders that the pipeline has, in place. Raises as ``fuse_into_network``."""
    found = read_adapters(lora.file, ARCHITECTURES[type(network).__name__].part, network.config)
    for part in ENCODERS:
        encoder = getattr(pipeline, part, None)
        if encoder is not None and part in found:
            _fuse(encoder, part, found[part], lora)


@torch.no_grad()
def _fuse(
    module: nn.Module, part: str, adapters: Mapping[str, Adapter], lora: Lora, spill: Spill | None = None
) -> None:
    """W + scale * factor * up @ down, for linear layers and convolutions (Hu et al. 2021)."""
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    by_kohya = {name.replace(".", "_"): name for name in layers}  # whose names do not tell dots from underscores
    names = {wanted: _name_among(wanted, layers, by_kohya) for wanted in adapters}
    foreign = [wanted for wanted, name in names.items() if name is None]
    if foreign:
        raise ModelError(
            f"{lora.file}: {len(foreign)} of its {len(adapters)} adapters of the {part} are for layers that this one lacks, first "
            f"{foreign[0]!r}; it was made for another model, take a LoRA of this one"
        )
    for wanted, name in names.items():
        assert name is not None
        layer, adapter = layers[name], adapters[wanted]
        if not _fits(layer, adapter):
            raise ModelError(
                f"{lora.file}: the adapter of {wanted!r} has factors {tuple(adapter.up.shape)} and {tuple(adapter.down.shape)}, "
                f"the {part}'s weight is {tuple(layer.weight.shape)}; it was made for another model, take a LoRA of this one"
            )
        factor = lora.scale * adapter.factor
        added = (adapter.up.flatten(1) @ adapter.down.flatten(1)).reshape(layer.weight.shape)
        layer.weight.data = layer.weight.data + (factor * added).to(layer.weight.dtype)
        if adapter.bias is not None and layer.bias is not None:
            layer.bias.data = layer.bias.data + (factor * adapter.bias).to(layer.bias.dtype)
        if not torch.isfinite(layer.weight).all():
            raise ModelError(f"{lora.file}: with its adapter {wanted!r} is not finite any more; lower --lora-scale")
        if spill is not None:
            layer.weight.data = spill.keep(layer.weight)


def _name_among(wanted: str, layers: Mapping[str, Any], by_kohya: Mapping[str, str]) -> str | None:
    """The layer's name in this module; the text model is the encoder itself in newer transformers."""
    spellings = (wanted, wanted.removeprefix("text_model."), f"text_model.{wanted}")
    return next((name for s in spellings if (name := s if s in layers else by_kohya.get(s.replace(".", "_")))), None)


def _fits(layer: nn.Linear | nn.Conv2d, adapter: Adapter) -> bool:
    shape, down, up, bias = layer.weight.shape, adapter.down, adapter.up, adapter.bias
    kernel = down.dim() == 2 or down.shape[1:] == (*shape[1:], 1, 1)[: down.dim() - 1]
    product = up.flatten(1).shape == (shape[0], down.shape[0]) and down[0].numel() == shape[1:].numel()
    return kernel and product and (bias is None or (layer.bias is not None and bias.shape == layer.bias.shape))
