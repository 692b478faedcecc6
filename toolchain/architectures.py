"""The diffusers networks that are supported: how each is called, what it must be given, and how its latents look.

Every network here is a function of a latent, a timestep and keyword tensors with one row per sample; where diffusers
nests keywords, or predicts a variance beside the output, it is undone here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.sizes import check_sides


@dataclass(frozen=True)
class Input:
    """One keyword tensor: finite floats, or whole numbers below ``classes``. ``row``: shape of a sample's row, None where free."""

    row: tuple[int | None, ...]
    classes: int | None = None
    required: bool = True

    def fault(self, tensor: Tensor) -> str | None:
        """What the tensor (P, *row) should be, None if it is that."""
        shape = ", ".join(["P", *("T" if size is None else str(size) for size in self.row)])
        fits = tensor.dim() == len(self.row) + 1 and tensor.numel() > 0
        fits = fits and all(want in (None, got) for want, got in zip(self.row, tensor.shape[1:], strict=True))
        if self.classes is not None:
            whole = tensor.dtype in (torch.int32, torch.int64)
            good = fits and whole and bool(((tensor >= 0) & (tensor < self.classes)).all())
            return None if good else f"integer labels 0-{self.classes - 1} of shape ({shape}), P at least 1"
        good = fits and tensor.is_floating_point() and bool(tensor.isfinite().all())
        return None if good else f"finite floating-point numbers of shape ({shape}), P at least 1"


@dataclass(frozen=True)
class Architecture:
    """One class of diffusers.

    Attributes:
        part: folder of the network in a pipeline.
        inputs: config -> keyword tensors by name. Raises ModelError for an option that is not supported.
        added: keywords that diffusers takes inside ``added_cond_kwargs``.
    """

    part: str
    inputs: Callable[[Mapping[str, Any]], dict[str, Input]]
    added: tuple[str, ...] = ()


def _unet(config: Mapping[str, Any]) -> dict[str, Input]:
    if config.get("class_embed_type") is not None:
        raise _unsupported("class_embed_type", config)
    return _labels(config.get("num_class_embeds"))


def _labels(classes: int | None) -> dict[str, Input]:
    return {} if classes is None else {"class_labels": Input((), classes)}


def _conditional_unet(config: Mapping[str, Any]) -> dict[str, Input]:
    for option in ("class_embed_type", "encoder_hid_dim_type"):
        if config.get(option) is not None:
            raise _unsupported(option, config)
    addition = config.get("addition_embed_type")
    if addition not in (None, "text_time"):
        raise _unsupported("addition_embed_type", config)
    width = config.get("cross_attention_dim")
    inputs = (
        {} if width is None else {"encoder_hidden_states": Input((None, width if isinstance(width, int) else None))}
    )
    if addition == "text_time":
        numbers = 6
        pooled = config["projection_class_embeddings_input_dim"] - numbers * config["addition_time_embed_dim"]
        inputs |= {"text_embeds": Input((pooled,)), "time_ids": Input((numbers,))}
    if config.get("time_cond_proj_dim") is not None:
        inputs["timestep_cond"] = Input((config["time_cond_proj_dim"],))
    return inputs | _labels(config.get("num_class_embeds"))


def _dit(config: Mapping[str, Any]) -> dict[str, Input]:
    return _labels(config["num_embeds_ada_norm"] + 1)  # the last one means "no class"


def _pixart(config: Mapping[str, Any]) -> dict[str, Input]:
    if config.get("use_additional_conditions") or (
        config.get("use_additional_conditions") is None and config["sample_size"] == 128
    ):
        sizes = {"resolution": Input((2,)), "aspect_ratio": Input((1,))}
    else:
        sizes = {}
    states = {"encoder_hidden_states": Input((None, config["caption_channels"] or config["cross_attention_dim"]))}
    return states | {"encoder_attention_mask": Input((None,), required=False)} | sizes


def _sd3(config: Mapping[str, Any]) -> dict[str, Input]:
    return {"encoder_hidden_states": Input((None, config["joint_attention_dim"])),
            "pooled_projections": Input((config["pooled_projection_dim"],))}  # fmt: skip


ARCHITECTURES: dict[str, Architecture] = {
    "UNet2DModel": Architecture("unet", _unet),
    "UNet2DConditionModel": Architecture("unet", _conditional_unet, ("text_embeds", "time_ids")),
    "DiTTransformer2DModel": Architecture("transformer", _dit),
    "PixArtTransformer2DModel": Architecture("transformer", _pixart, ("resolution", "aspect_ratio")),
    "SD3Transformer2DModel": Architecture("transformer", _sd3),
}


def inputs_of(config: Mapping[str, Any]) -> dict[str, Input]:
    """Keyword tensors of a network. Raises ModelError: an option of its config is not supported."""
    return ARCHITECTURES[config["_class_name"]].inputs(config)


def latent_shape(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C, H, W) of the latent.

    Raises:
        ModelError: the config has no usable size, one that the network cannot halve and double back, or more inputs than
            outputs (inpainting).
    """
    size = config.get("sample_size")
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ModelError(
            f"config.json: sample_size is {size!r}, allowed are the latent's side or [height, width]; set it there"
        )
    check_sides(config, (sides[0], sides[1]))
    channels, out = config["in_channels"], config.get("out_channels") or config["in_channels"]
    if out not in _outputs(config):
        hint = (
            " (an inpainting or image-to-image network, whose extra inputs are not supported)" if channels > out else ""
        )
        raise ModelError(
            f"config.json: in_channels {channels} and out_channels {out} differ{hint}; use a text-to-image, class-to-image or "
            "unconditional model"
        )
    return channels, sides[0], sides[1]


def _outputs(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Transformers may predict a variance too, which samplers with a table of their own leave aside."""
    channels = config["in_channels"]
    return (channels, 2 * channels) if ARCHITECTURES[config["_class_name"]].part == "transformer" else (channels,)


def call_network(network: nn.Module, sample: Tensor, timestep: Tensor, keywords: Mapping[str, Tensor]) -> Tensor:
    """The network's output, (B, C, H, W) as ``sample``; a variance predicted beside it is dropped.

    Args:
        network: a diffusers network of ARCHITECTURES, or a module of ours around one, which takes keywords as they are.
        sample: (B, C, H, W). timestep: (B,).
    """
    architecture = ARCHITECTURES.get(type(network).__name__)
    if architecture is None:
        plain: Tensor = network(sample, timestep, **keywords, return_dict=False)[0]
        return plain
    named: dict[str, Any] = {name: value for name, value in keywords.items() if name not in architecture.added}
    if architecture.added:
        named["added_cond_kwargs"] = {name: keywords.get(name) for name in architecture.added}
    out: Tensor = network(sample, timestep=timestep, **named, return_dict=False)[0]
    return out if out.shape[1] == sample.shape[1] else out[:, : sample.shape[1]]


def _unsupported(option: str, config: Mapping[str, Any]) -> ModelError:
    return ModelError(
        f"the network has {option} = {config[option]!r}, which is not supported; allowed are models conditioned on class labels, "
        "text (encoder_hidden_states), and SDXL's text_time"
    )
