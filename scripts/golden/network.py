"""What answers in the place of a network where golden vectors are made."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class MadeUpNetwork:
    """Answers from a formula, and keeps what it was asked and what it answered.

    It reckons in float64 and rounds: processors differ in the last bits of tanh, and the sampler's first steps make 30 times of it.
    """

    def __init__(self, overflow: int | None) -> None:
        self.overflow = overflow
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.timesteps: list[float] = []
        self.steps: list[int] = []
        self.keep = False

    def __call__(self, k: int, x: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        rows = (-1, *(1,) * (x.dim() - 1))
        label, time = (each.to(torch.float64).reshape(rows) for each in (conditioning["class_labels"], timestep))
        out = (torch.tanh(0.7 * x.roll(1, -1).double() + 0.1 * label) * (0.5 + time / 2000) + 0.01 * k).float()
        if self.keep:
            if self.overflow is not None and len(self.outputs) >= self.overflow:
                out = out / 0
            self.inputs.append(x)
            self.outputs.append(out)
            self.timesteps.append(float(timestep))
            self.steps.append(k)
        return out
