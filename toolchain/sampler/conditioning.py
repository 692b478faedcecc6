"""What a network is told beside the latent and the timestep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dq_toolchain.toolchain.sampler.transfer import to_device

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Keyword tensors for the network, first axis = sample. ``uncond`` is empty without guidance."""

    cond: Mapping[str, Tensor] = field(default_factory=dict)
    uncond: Mapping[str, Tensor] = field(default_factory=dict)

    def select(self, index: Tensor | slice) -> Conditioning:
        """The conditioning of some samples."""
        return Conditioning({k: v[index] for k, v in self.cond.items()}, {k: v[index] for k, v in self.uncond.items()})

    def ordered(self, names: Sequence[str]) -> Conditioning:
        """The same, in the order in which a program takes it; names that it does not hold are left out."""
        cond, uncond = ({n: side[n] for n in names if n in side} for side in (self.cond, self.uncond))
        return Conditioning(cond, uncond)

    def to(self, device: torch.device) -> Conditioning:
        return Conditioning(
            {k: to_device(v, device) for k, v in self.cond.items()},
            {k: to_device(v, device) for k, v in self.uncond.items()},
        )

    @property
    def doubled(self) -> dict[str, Tensor]:
        """Keywords of the batched [unconditional, conditional] call."""
        import torch

        return {name: torch.cat([self.uncond[name], value]) for name, value in self.cond.items()}
