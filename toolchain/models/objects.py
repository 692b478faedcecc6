"""From a network or a pipeline in memory to a model as the rest knows it: float32, on the CPU, in eval mode."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.disk.digest import digest_of
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architectures import (
    ARCHITECTURES,
    DISTILLED,
    architecture_of,
    inputs_of,
    latent_shape,
    without_idle,
)
from dq_toolchain.toolchain.models.loading import Model, build_network
from dq_toolchain.toolchain.models.network_config import complete
from dq_toolchain.toolchain.models.own import in_float32, own_config
from dq_toolchain.toolchain.models.pipelines import check_parts

PARTS = tuple(dict.fromkeys(architecture.part for architecture in ARCHITECTURES.values()))
MERGE = "merge adapters first (pipe.fuse_lora(), then pipe.unload_lora_weights()), or load the model unquantized"


def place_of(thing: object) -> Path:
    """What stands for the folder of a thing in memory, in texts and in the recipe; there is no such folder."""
    return Path(f"<{type(thing).__name__} in memory>")


def model_of_pipeline(pipeline: Any, scheduler_config: Mapping[str, Any]) -> Model:
    """The network of a diffusers pipeline. Its tokenizers and text encoders stay in the pipeline, and encode prompts there.

    Raises:
        ModelError: its network is none of ARCHITECTURES, is quantized, or holds unmerged adapters, or another part steers it.
    """
    network = next((part for name in PARTS if (part := getattr(pipeline, name, None)) is not None), None)
    if network is None or architecture_of(network) is None:
        raise ModelError(
            f"{type(pipeline).__name__}: its network is {type(network).__name__}, allowed are {', '.join(ARCHITECTURES)}"
        )
    check_parts(pipeline.components, type(pipeline).__name__)
    model = _described(network, scheduler_config, place_of(pipeline), pipeline)
    if getattr(pipeline.config, "is_distilled", False) is True:
        model.config[DISTILLED] = True
    return model


def model_of_network(
    network: nn.Module,
    scheduler_config: Mapping[str, Any],
    sample_shape: Sequence[int] | None,
    conditioning: Mapping[str, Tensor],
) -> Model:
    """A network by itself: one of ARCHITECTURES, which its config describes, or any other module.

    Args:
        sample_shape: (C, H, W) or other axes behind the channels; only of other modules, where it is needed.
        conditioning: keyword tensors, of which other modules take rows of the same shape.
    Raises:
        ModelError: it cannot be copied, its shape is missing or wrong, or it has no parameters.
    """
    if architecture_of(network) is not None:
        if sample_shape is not None:
            raise ModelError(
                f"sample_shape: a {type(network).__name__} has its size in its config (sample_size); leave sample_shape out"
            )
        return _described(network, scheduler_config, place_of(network), None)
    if sample_shape is None:
        raise ModelError(
            f"{type(network).__name__} has no config that says how large a sample is; give sample_shape, such as (3, 32, 32)"
        )
    config = own_config(network, sample_shape, conditioning)
    copied = in_float32(network)
    name = type(network).__name__
    return Model(
        name, digest_of(copied.state_dict()), config, dict(scheduler_config), copied, place_of(network), module=network
    )


def _described(network: Any, scheduler_config: Mapping[str, Any], place: Path, pipeline: Any) -> Model:
    """A diffusers network, built again from its config with the same tensors: what was hung onto it is left behind."""
    where = f"{place}: config of {type(network).__name__}"
    config = json.loads(
        json.dumps({k: v for k, v in network.config.items() if k != "_use_default_values"}, default=str)
    )
    config = complete(config | {"_class_name": type(network).__name__})
    if config.get("quantization_config") is not None:
        raise ModelError(f"{where}: its weights are quantized already (quantization_config); {MERGE}")
    inputs_of(config, where)
    latent_shape(config, where)
    built, state = build_network(config, where), {}
    for name, tensor in without_idle(config, network.state_dict()).items():
        state[name] = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
    expected = {name: tensor.shape for name, tensor in built.state_dict().items()}
    wrong = sorted(
        name for name in {*expected, *state} if expected.get(name) != getattr(state.get(name), "shape", None)
    )
    if wrong:
        raise ModelError(f"{where} does not describe {wrong[0]!r} (and {len(wrong) - 1} more tensors); {MERGE}")
    built.load_state_dict(state, assign=True)
    return Model(
        str(place),
        digest_of(state),
        config,
        dict(scheduler_config),
        built.requires_grad_(False),
        place,
        pipeline=pipeline,
    )
