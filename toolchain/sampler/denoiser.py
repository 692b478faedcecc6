"""The network as the sampler sees it: latent and step in, output after guidance out.

Classifier-free guidance belongs to the loop: f = f_u + w * (f_c - f_u), both halves in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.table import SamplerTable


@dataclass(frozen=True)
class Denoiser:
    """f(x, k): the network at the table's k-th timestep, after guidance and the table's correction.

    It scales the latent for the network itself (the scheduler's ``scale_model_input``): give it latents as they are.

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
        """x[k] (B, C, H, W) float32, the sampler's latent before call k -> f[k] (B, C, H, W) float32."""
        if self.set_step is not None:
            self.set_step(k)
        x = self.table.input_scale[k] * x
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
        out = call_network(self.network, batch, time, keywords).to(x.dtype)  # of a shortened pass it is bfloat16
        if not guided:
            return out
        unconditional, conditional = out.chunk(2)
        return unconditional + self.guidance * (conditional - unconditional)


class WithTable(Protocol):
    """Anything that answers as ``Denoiser`` does: latents x[k] as they are, scaled inside by its own table."""

    @property
    def table(self) -> SamplerTable: ...

    def __call__(self, x: Tensor, k: int) -> Tensor: ...


def each_output_at(denoiser: WithTable, latents: Iterable[Tensor]) -> Iterator[Tensor]:
    """``outputs_at`` call by call: f[k] (B, C, H, W) for k = 0, 1, ..., each computed when it is asked for."""
    for k, x in zip(range(denoiser.table.calls), latents, strict=False):
        yield denoiser(x, k)


def outputs_at(denoiser: WithTable, latents: Iterable[Tensor]) -> Tensor:
    """The network's output at given latents (teacher forcing), not along its own run: (N, B, C, H, W) float32.

    Args:
        latents: N or N + 1 of (B, C, H, W), x[0] first; the last of N + 1 is the finished sample, which no call sees.
    """
    return torch.stack(list(each_output_at(denoiser, latents)))
