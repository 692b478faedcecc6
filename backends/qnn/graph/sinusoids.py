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
    """The conditioning as such a network takes it; see ``projected_tensors``."""
    cond, uncond = (projected_tensors(artifact, side) for side in (conditioning.cond, conditioning.uncond))
    return Conditioning(cond, uncond)


def projected_tensors(artifact: Artifact, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(S, n) -> (S, n * channels) float32 of what is projected, the others as they are.

    Args:
        tensors: by name of the conditioning, or with ``cond.`` or ``uncond.`` in front of it.
    """
    names = {each: module for module, given in PROJECTED.items() for each in given}
    asked = {name: names[plain] for name in tensors if (plain := name.rpartition(".")[2]) in names}
    if not asked:
        return dict(tensors)
    with torch.device("meta"):
        modules = _projections(artifact.build_skeleton())
    return {
        name: _rows(modules[asked[name]], tensor) if asked.get(name) in modules else tensor
        for name, tensor in tensors.items()
    }


def _rows(module: Timesteps, tensor: Tensor) -> Tensor:
    sinusoids: Tensor = module(tensor.flatten())
    return sinusoids.reshape(len(tensor), -1).to(torch.float32)


def _projections(network: nn.Module) -> dict[str, Timesteps]:
    return {
        name: module for name, module in network.named_modules() if isinstance(module, Timesteps) and name in PROJECTED
    }
