"""The diffusers networks that are supported: how each is called, what it must be given, and how its latents look.

Every network here is a function of a latent, a timestep and keyword tensors with one row per sample; where diffusers
nests keywords, or predicts a variance beside the output, it is undone here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architecture import TEXT_MASK, Architecture, Input, Options
from dq_toolchain.toolchain.models.flux import FLUX, FLUX_2
from dq_toolchain.toolchain.models.network_config import complete, whole
from dq_toolchain.toolchain.models.own import OWN, inputs_in, sample_shape_in
from dq_toolchain.toolchain.models.qwen_image import QWEN_IMAGE
from dq_toolchain.toolchain.models.sizes import check_sides
from dq_toolchain.toolchain.models.z_image import Z_IMAGE

if TYPE_CHECKING:
    from torch import Tensor, nn


def _unet(config: Options, where: str) -> dict[str, Input]:
    _refuse(config, where, "class_embed_type")
    return _labels(config, where)


def _labels(config: Options, where: str, key: str = "num_class_embeds", more: int = 0) -> dict[str, Input]:
    return {} if config[key] is None else {"class_labels": Input((), whole(config, key, where) + more)}


def _conditional_unet(config: Options, where: str) -> dict[str, Input]:
    _refuse(config, where, "class_embed_type", "encoder_hid_dim_type", "encoder_hid_dim")
    addition = config["addition_embed_type"]
    if addition != "text_time":
        _refuse(config, where, "addition_embed_type")
    width = config["cross_attention_dim"]
    varied = isinstance(width, list | tuple)
    inputs = {} if width is None else {
        "encoder_hidden_states": Input((None, None if varied else whole(config, "cross_attention_dim", where)))
    }  # fmt: skip
    if addition == "text_time":
        numbers = 6
        joined = whole(config, "projection_class_embeddings_input_dim", where)
        each = whole(config, "addition_time_embed_dim", where)
        if joined <= numbers * each:
            raise ModelError(
                f"{where}: projection_class_embeddings_input_dim is {joined}, allowed is more than {numbers} times "
                f"addition_time_embed_dim ({each}), as in SDXL; correct it"
            )
        inputs |= {"text_embeds": Input((joined - numbers * each,)), "time_ids": Input((numbers,))}
    if config["time_cond_proj_dim"] is not None:
        inputs["timestep_cond"] = Input((whole(config, "time_cond_proj_dim", where),))
    return inputs | _labels(config, where)


def _dit(config: Options, where: str) -> dict[str, Input]:
    whole(config, "num_embeds_ada_norm", where)
    return _labels(config, where, "num_embeds_ada_norm", 1)  # the last one means "no class"


def _pixart(config: Options, where: str) -> dict[str, Input]:
    extra = config["use_additional_conditions"]
    sized = config["sample_size"] == 128 if extra is None else bool(extra)
    sizes = {"resolution": Input((2,)), "aspect_ratio": Input((1,))} if sized else {}
    key = "cross_attention_dim" if config["caption_channels"] is None else "caption_channels"
    states = {"encoder_hidden_states": Input((None, whole(config, key, where)))}
    return states | {"encoder_attention_mask": TEXT_MASK} | sizes


def _sd3(config: Options, where: str) -> dict[str, Input]:
    return {"encoder_hidden_states": Input((None, whole(config, "joint_attention_dim", where))),
            "pooled_projections": Input((whole(config, "pooled_projection_dim", where),))}  # fmt: skip


def _sana(config: Options, where: str) -> dict[str, Input]:
    if config["timestep_scale"] != 1 or config["guidance_embeds"]:
        raise ModelError(
            f"{where}: timestep_scale is {str(config['timestep_scale'])[:20]}, guidance_embeds is "
            f"{str(config['guidance_embeds'])[:20]}, allowed are 1 and false: "
            "the sampler of SANA-Sprint is not supported; take SANA itself"
        )
    states = {"encoder_hidden_states": Input((None, whole(config, "caption_channels", where)))}
    return states | {"encoder_attention_mask": TEXT_MASK}


ARCHITECTURES: dict[str, Architecture] = {
    "UNet2DModel": Architecture("unet", _unet),
    "UNet2DConditionModel": Architecture(
        "unet", _conditional_unet, ("text_embeds", "time_ids"), "text_embeds", "timestep_cond"
    ),
    "DiTTransformer2DModel": Architecture("transformer", _dit),
    "PixArtTransformer2DModel": Architecture("transformer", _pixart, ("resolution", "aspect_ratio")),
    "SD3Transformer2DModel": Architecture("transformer", _sd3, pooled="pooled_projections"),
    "SanaTransformer2DModel": Architecture("transformer", _sana),
    "FluxTransformer2DModel": FLUX,
    "Flux2Transformer2DModel": FLUX_2,
    "ZImageTransformer2DModel": Z_IMAGE,
    "QwenImageTransformer2DModel": QWEN_IMAGE,
}
DISTILLED = "_is_distilled"
"""Key of a config whose pipeline's index says ``is_distilled``: it makes one conditional call, whatever guidance it is given."""


def inputs_of(config: Mapping[str, Any], where: str = "config.json") -> dict[str, Input]:
    """Keyword tensors of a network. Options that the config lacks have diffusers' defaults.

    Args:
        where: the config's file, for the error.
    Raises:
        ModelError: an option of its config is not supported.
    """
    if config["_class_name"] == OWN:
        return {name: Input(row, classes) for name, (row, classes) in inputs_in(config).items()}
    return ARCHITECTURES[config["_class_name"]].inputs(complete(config), where)


def latent_shape(config: Mapping[str, Any], where: str = "config.json") -> tuple[int, ...]:
    """(C, H, W) of the latent; of a module of the caller's the sample's shape, which may have other axes.

    Raises:
        ModelError: the config has no usable size, one that the network cannot halve and double back, or more inputs than
            outputs (inpainting).
    """
    if config["_class_name"] == OWN:
        return sample_shape_in(config)
    config, packed = complete(config), ARCHITECTURES[config["_class_name"]].packed
    size = config["sample_size"] if packed is None else config.get("sample_size", packed.side)
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ModelError(
            f"{where}: sample_size is {str(size)[:60]}, allowed are the latent's side or [height, width]; set it there"
        )
    check_sides(config, (sides[0], sides[1]), where)
    if packed is not None:
        return packed.latent(config, where), sides[0], sides[1]
    channels = whole(config, "in_channels", where)
    out = channels if config["out_channels"] is None else whole(config, "out_channels", where)
    is_transformer = ARCHITECTURES[config["_class_name"]].part == "transformer"
    # transformers may predict a variance too, which samplers with a table of their own leave aside
    if out not in ((channels, 2 * channels) if is_transformer else (channels,)):
        hint = (
            " (an inpainting or image-to-image network, whose extra inputs are not supported)" if channels > out else ""
        )
        raise ModelError(
            f"{where}: in_channels {channels} and out_channels {out} differ{hint}; use a text-to-image, class-to-image or "
            "unconditional model"
        )
    return channels, sides[0], sides[1]


def without_idle(config: Mapping[str, Any], named: Mapping[str, Any], dot: str = ".") -> dict[str, Any]:
    """What is named after modules of a network, without those that nothing of its output depends on: they are in files of weights
    and of adapters, and the network here is without them.

    Args:
        dot: what the names have between two modules.
    """
    packed = ARCHITECTURES[config["_class_name"]].packed
    idle = () if packed is None else tuple(name.replace(".", dot) for name in packed.idle(complete(config)))
    return {
        name: each for name, each in named.items() if not any(f"{name}{dot}".startswith(f"{one}{dot}") for one in idle)
    }


def call_network(network: nn.Module, sample: Tensor, timestep: Tensor, keywords: Mapping[str, Tensor]) -> Tensor:
    """The network's output, (B, C, H, W) as ``sample``; a variance that a network of ARCHITECTURES predicts beside it is
    dropped.

    Args:
        network: a diffusers network of ARCHITECTURES, or any other module, which takes keywords as they are and gives a
            tensor, a tuple that begins with it, or an object that has it as ``sample``.
        sample: (B, C, H, W). timestep: (B,).
    """
    architecture = architecture_of(network)
    if architecture is None:
        return output_in(network(sample, timestep, **keywords))
    if architecture.packed is not None:
        # a table of step vectors is looked up by the sampler's timesteps
        unit = 1 if getattr(network, "takes_step_vectors", False) else architecture.packed.unit
        time = timestep if unit == 1 else timestep / unit
        return architecture.packed.call(network, sample, time, keywords)
    named: dict[str, Any] = {name: value for name, value in keywords.items() if name not in architecture.added}
    if architecture.added:
        named["added_cond_kwargs"] = {name: keywords.get(name) for name in architecture.added}
    out: Tensor = network(sample, timestep=timestep, **named, return_dict=False)[0]
    return out if out.shape[1] == sample.shape[1] else out[:, : sample.shape[1]]


def unit_of_time(network: nn.Module) -> int:
    """The sampler's timesteps in one unit of the time that the network is given: most packed ones count from 0 to 1."""
    architecture = architecture_of(network)
    return 1 if architecture is None or architecture.packed is None else architecture.packed.unit


def fix_positions(network: nn.Module, sample: Tensor, keywords: Mapping[str, Tensor]) -> None:
    """Put tables in the place of what a network computes from positions alone, for latents and texts of these sizes: programs
    on devices hold them as constants."""
    architecture = architecture_of(network)
    if architecture is not None and architecture.packed is not None:
        architecture.packed.fix(network, sample, keywords)


def architecture_of(network: nn.Module) -> Architecture | None:
    """The entry of ARCHITECTURES of a diffusers network, None of any other module, whatever it is called."""
    kind = type(network)
    return ARCHITECTURES.get(kind.__name__) if kind.__module__.startswith("diffusers.") else None


def output_in(out: Any) -> Tensor:
    """The tensor in what a module's forward gives: the tensor, the first of a tuple or list, or ``sample`` of an object.

    Raises:
        TypeError: there is none.
    """
    import torch

    found = out[0] if isinstance(out, tuple | list) and out else getattr(out, "sample", out)
    if not isinstance(found, torch.Tensor):
        raise TypeError(
            f"forward must give a tensor, a tuple that begins with one, or an object with .sample, got {type(out).__name__}"
        )
    return found


def _refuse(config: Options, where: str, *options: str) -> None:
    for option in options:
        if config[option] is not None:
            raise ModelError(
                f"{where}: {option} is {str(config[option])[:60]!r}, which is not supported; allowed are models conditioned "
                "on class labels, text (encoder_hidden_states), and SDXL's text_time"
            )
