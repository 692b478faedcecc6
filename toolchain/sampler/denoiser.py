"""The network as the sampler sees it: latent and step in, output after guidance out.

Classifier-free guidance belongs to the loop: f = f_u + w * (f_c - f_u), both halves in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.sampler.table import SamplerTable


@dataclass(frozen=True)
class Conditioning:
    """Keyword tensors for the network, first axis = sample. ``uncond`` is empty without guidance."""

    cond: Mapping[str, Tensor] = field(default_factory=dict)
    uncond: Mapping[str, Tensor] = field(default_factory=dict)

    def select(self, index: Tensor | slice) -> Conditioning:
        """The conditioning of some samples."""
        return Conditioning({k: v[index] for k, v in self.cond.items()}, {k: v[index] for k, v in self.uncond.items()})

    def to(self, device: torch.device | str) -> Conditioning:
        return Conditioning(
            {k: v.to(device) for k, v in self.cond.items()}, {k: v.to(device) for k, v in self.uncond.items()}
        )

    @property
    def doubled(self) -> dict[str, Tensor]:
        """Keywords of the batched [unconditional, conditional] call."""
        return {name: torch.cat([self.uncond[name], value]) for name, value in self.cond.items()}


@dataclass(frozen=True)
class Denoiser:
    """f(x, k): the network at the table's k-th timestep, after guidance and the table's correction.

    Attributes:
        guidance: w in f_u + w * (f_c - f_u); 1 means no guidance and one call per step.
        set_step: told k before every call; a quantized UNet switches its step group there.
        batch: samples that go through the network at once, at most; None is all of them.
    """

    network: nn.Module
    table: SamplerTable
    conditioning: Conditioning
    guidance: float = 1.0
    set_step: Callable[[int], None] | None = None
    batch: int | None = None

    def __call__(self, x: Tensor, k: int) -> Tensor:
        """(B, C, H, W) network input (already scaled by the table), float32 -> (B, C, H, W) float32."""
        if self.set_step is not None:
            self.set_step(k)
        correction = self.table.correction
        if correction is None:
            return self._network(x, k)
        return correction.after(self._network(correction.before(x, k), k), k)

    def _network(self, x: Tensor, k: int) -> Tensor:
        if self.batch is not None and len(x) > self.batch:
            parts = [slice(begin, begin + self.batch) for begin in range(0, len(x), self.batch)]
            return torch.cat([replace(self, conditioning=self.conditioning.select(p))._network(x[p], k) for p in parts])
        guided = self.guidance != 1.0
        keywords = self.conditioning.doubled if guided else dict(self.conditioning.cond)
        batch = torch.cat([x, x]) if guided else x
        time = torch.full((len(batch),), self.table.timesteps[k], dtype=torch.float32, device=x.device)
        out = call_network(self.network, batch, time, keywords)
        if not guided:
            return out
        unconditional, conditional = out.chunk(2)
        return unconditional + self.guidance * (conditional - unconditional)
