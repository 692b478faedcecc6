"""The network as the sampler sees it, executed by ExecuTorch: latent and step in, output after guidance out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dq_toolchain.backends.executorch.device import Device
from dq_toolchain.backends.executorch.program import Call
from dq_toolchain.toolchain.denoiser import Conditioning
from dq_toolchain.toolchain.sampler_table import SamplerTable


@dataclass(frozen=True)
class Schedule:
    """What changes from step to step. ``ranges`` is (G, 2L) for the sentinel form, None for the static one."""

    table: SamplerTable
    guidance: float
    method_of_step: tuple[str, ...]
    group_of_step: tuple[int, ...]
    ranges: Tensor | None


@dataclass
class DeviceNetwork:
    """f(x, k) of one seed, batch 1; two executions and a combination per call where there is guidance.

    Attributes:
        conditioning: of this seed, first axis 1.
        step_ms: (k, milliseconds) of every call so far, executions only.
    """

    device: Device
    schedule: Schedule
    conditioning: Conditioning
    step_ms: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, x: Tensor, k: int) -> Tensor:
        """(1, C, H, W) network input, already scaled by the table -> (1, C, H, W), float32."""
        start = time.perf_counter()
        out = self._execute(x, k, self.conditioning.cond)
        if self.schedule.guidance != 1.0:
            unconditional = self._execute(x, k, self.conditioning.uncond)
            out = unconditional + self.schedule.guidance * (out - unconditional)
        self.step_ms.append((k, (time.perf_counter() - start) * 1e3))
        return out

    def _execute(self, x: Tensor, k: int, keywords: Mapping[str, Tensor]) -> Tensor:
        ranges, group = self.schedule.ranges, self.schedule.group_of_step[k]
        timestep = torch.tensor([self.schedule.table.timesteps[k]], dtype=torch.float32)
        call = Call(x.to(torch.float32), timestep, {name: keywords[name] for name in self.conditioning.cond})
        inputs = call.arguments(None if ranges is None else ranges[group:group + 1])
        return self.device(self.schedule.method_of_step[k], inputs)
