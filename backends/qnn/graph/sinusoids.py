"""Sinusoids of conditioning, such as SDXL's image sizes: the host computes them, and the network's input is they, not the sizes.

In fp16 the NPU gets sinusoids of large numbers wrong. They are the same in every call, so a bundle holds them as its conditioning,
under the name of what they were computed from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.conditioning import Conditioning

PROJECTED = {
    "add_time_proj": ("time_ids",),
    "adaln_single.emb.additional_condition_proj": ("resolution", "aspect_ratio"),
}
"""Module of a diffusers network -> the conditioning that it computes sinusoids of."""


class Given(nn.Module):
    """What was computed before, in the place of the module that would compute it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(n * channels,) -> (n, channels)."""
        return x.reshape(-1, self.channels)


def left_in_network(network: nn.Module) -> Iterator[str]:
    """Names of modules that compute sinusoids of anything else."""
    return (name for name, module in network.named_modules() if isinstance(module, Timesteps) and name not in PROJECTED)


def take_projected(network: nn.Module) -> None:
    """Let a network take sinusoids in the place of the conditioning that it computes them of. In place."""
    for name, module in _projections(network).items():
        network.set_submodule(name, Given(int(module.num_channels)))


def projected(artifact: Artifact, conditioning: Conditioning) -> Conditioning:
    """The conditioning as such a network takes it: (S, n) -> (S, n * channels) float32 of what is projected."""
    if not any(name in conditioning.cond for names in PROJECTED.values() for name in names):
        return conditioning
    with torch.device("meta"):
        modules = _projections(artifact.build_skeleton())

    def side(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: _project(name, tensor, modules) for name, tensor in tensors.items()}

    return Conditioning(side(conditioning.cond), side(conditioning.uncond))


def _project(name: str, tensor: Tensor, modules: Mapping[str, Timesteps]) -> Tensor:
    for module_name, module in modules.items():
        if name in PROJECTED[module_name]:
            rows: Tensor = module(tensor.flatten())
            return rows.reshape(len(tensor), -1).to(torch.float32)
    return tensor


def _projections(network: nn.Module) -> dict[str, Timesteps]:
    return {
        name: module for name, module in network.named_modules() if isinstance(module, Timesteps) and name in PROJECTED
    }
