"""Published few-step transformers with random integers that lie on disk: none of their weights is ever in memory as a whole.

Configs are diffusers' defaults of the class where the published config says the same, and otherwise as the model's makers
publish them: FLUX.2-klein-4B has 5 double and 20 single blocks of 3072 channels, Z-Image 30 layers of 3840 and 2 refiners of
each kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from dq_toolchain.backends.common.call import Call
from dq_toolchain.toolchain.disk.files import read_tensors
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.models.loading import build_network
from dq_toolchain.toolchain.quant.site import Site
from dq_toolchain.toolchain.quant.sites import float_operations, weighted_layers
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups

STEPS, TOKENS = 4, 512
FLOATS, WEIGHTS = "floats.safetensors", "weights.safetensors"
ROWS = 2**26
"""Random integers that are made at a time."""
Config = dict[str, Any]


@dataclass(frozen=True)
class Topology:
    """A published network. ``config``: of so many blocks of the most frequent kind; ``blocks``: how many it has. ``pixels``: of a
    picture's side for one latent's. ``text``: key of the config with the width of the text."""

    config: Callable[[int], Config]
    blocks: int
    channels: int
    pixels: int
    text: str


def _flux_2(blocks: int) -> Config:
    return {
        "_class_name": "Flux2Transformer2DModel", "attention_head_dim": 128, "axes_dims_rope": [32, 32, 32, 32], "eps": 1e-06,
        "guidance_embeds": False, "in_channels": 128, "joint_attention_dim": 7680, "mlp_ratio": 3.0, "num_attention_heads": 24,
        "num_layers": max(1, blocks // 4), "num_single_layers": blocks, "out_channels": None, "patch_size": 1, "rope_theta": 2000,
        "timestep_guidance_channels": 256,
    }  # fmt: skip


def _z_image(blocks: int) -> Config:
    return {
        "_class_name": "ZImageTransformer2DModel", "all_f_patch_size": [1], "all_patch_size": [2], "axes_dims": [32, 48, 48],
        "axes_lens": [1536, 512, 512], "cap_feat_dim": 2560, "dim": 3840, "in_channels": 16, "n_heads": 30, "n_kv_heads": 30,
        "n_layers": blocks, "n_refiner_layers": 2, "norm_eps": 1e-05, "qk_norm": True, "rope_theta": 256.0, "t_scale": 1000.0,
    }  # fmt: skip


TOPOLOGIES = {
    "flux.2-klein-4b": Topology(_flux_2, 20, 128, 16, "joint_attention_dim"),
    "z-image": Topology(_z_image, 30, 16, 8, "cap_feat_dim"),
}


def call_of(topology: Topology, image: int) -> Call:
    """One call with latents of a square picture of so many pixels and TOKENS of text."""
    side, width = image // topology.pixels, topology.config(1)[topology.text]
    text = {"encoder_hidden_states": torch.zeros(1, TOKENS, width)}
    return Call(torch.zeros(1, topology.channels, side, side), torch.tensor([500.0]), text)


def write_random(config: Config, folder: Path) -> None:
    """Write what ``random_artifact`` reads: random int8 weights, ones and zeros for the other parameters."""
    network = build_network(config)
    layers = {f"{name}.weight": tuple(layer.weight.shape) for name, layer in weighted_layers(network)}
    generator = np.random.default_rng(0)

    def integers(count: int) -> bytes:
        return generator.integers(-127, 128, count, dtype=np.int8).tobytes()

    write_streamed(folder / WEIGHTS, "I8", layers, integers)
    others = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if name not in layers}
    ones = np.ones(1, np.float32).tobytes()
    write_streamed(folder / FLOATS, "F32", others, lambda count: ones * count)


def write_streamed(path: Path, dtype: str, shapes: Mapping[str, tuple[int, ...]], make: Callable[[int], bytes]) -> None:
    """Write a safetensors file piece by piece. ``make``: the bytes of so many next numbers."""
    size = {"I8": 1, "F32": 4, "BF16": 2}[dtype]
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + size * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for left in range(end // size, 0, -ROWS):
            file.write(make(min(left, ROWS)))


def random_artifact(config: Config, folder: Path, step_groups: int) -> Artifact:
    """What ``write_random`` wrote, mapped into memory, with random scales: W8A8."""
    weights, floats = (read_tensors(folder / name, "write it again") for name in (WEIGHTS, FLOATS))
    return _artifact(config, step_groups, lambda name, _shape: weights[name], floats)


def shapes_of_artifact(config: Config) -> Artifact:
    """The same on torch's meta device: shapes, no memory."""
    floats = dict(build_network(config).state_dict())
    return _artifact(config, 1, lambda _name, shape: torch.empty(shape, dtype=torch.int8, device="meta"), floats)


def _artifact(
    config: Config, step_groups: int, weight: Callable[[str, torch.Size], Tensor], floats: Mapping[str, Tensor]
) -> Artifact:
    network = build_network(config)
    generator = torch.Generator().manual_seed(0)
    layers, sites = {}, []
    for name, layer in weighted_layers(network):
        scale = _fp16(0.01 * torch.rand(len(layer.weight), generator=generator) + 0.001)
        layers[name] = LayerWeights(weight(f"{name}.weight", layer.weight.shape), scale)
        sites.append(Site(name, "input", "linear", 8, "symmetric", 8))
    table = probe(FlowMatchEulerDiscreteScheduler(shift=3.0), STEPS)
    ranges = _fp16(0.05 * torch.rand(step_groups, len(sites), generator=generator) + 0.01)
    return Artifact(
        model_id="random", weight_hash="0" * 64, config=config, scheduler_config={}, table=table, guidance=1.0,
        step_groups=even_step_groups(table.calls, step_groups), splits={}, sites=tuple(sites),
        float_operations=float_operations(network, False), layers=layers, scale=ranges,
        zero_point=torch.zeros(ranges.shape, dtype=torch.int32),
        float_parameters={name: x for name, x in floats.items() if name.removesuffix(".weight") not in layers},
        record={"method": "random"},
    )  # fmt: skip


def _fp16(x: Tensor) -> Tensor:
    return x.to(torch.float16).to(torch.float32)
