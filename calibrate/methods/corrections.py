"""Correcting a quantized network while it samples: statistics of each step become rows of the table's ``Correction``.

Steps are done in order, with the corrections of earlier steps in force, as they will be on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.rollout import State
from dq_toolchain.toolchain.sampler.table import SamplerTable

SAMPLES = 64
"""Calibration samples that statistics are taken from, at most: means over them and all pixels of a channel."""


@dataclass(frozen=True)
class Step:
    """What a method decides for one step, (C,) each: see ``Correction``, on top of what the table does already.

    On the CPU, as all that it is decided from.
    """

    output_scale: Tensor
    output_shift: Tensor
    input_shift: Tensor

    @classmethod
    def nothing(cls, channels: int) -> Step:
        return cls(torch.ones(channels), torch.zeros(channels), torch.zeros(channels))


@torch.no_grad()
def correct_in_order(
    artifact: Artifact,
    trajectories: Trajectories,
    before: Callable[[int, Tensor], Tensor],
    after: Callable[[int, Tensor, Tensor], Step],
) -> SamplerTable:
    """The artifact's table with a correction of every step, found along the quantized network's own run.

    Args:
        before: (k, latents (M, C, H, W) before step k of the run) -> (C,) to be added to the network's input.
        after: (k, outputs of the run at step k, that input shift applied, (M, C, H, W); latents of the run) -> the
            step's output scale and shift; its input shift is not looked at.
    """
    table = artifact.table
    channels = trajectories.samples.start.shape[1]
    state = State((trajectories.start(),))
    network, noise = trajectories.quantized(artifact, table), trajectories.noise()
    for k in range(table.calls):
        shift = before(k, state.latent)
        table = with_step(table, k, replace(Step.nothing(channels), input_shift=shift))
        output = network.with_table(table)(state.latent, k)
        step = after(k, output, state.latent)
        table = with_step(table, k, replace(step, input_shift=torch.zeros(channels)))
        corrected = output * _view(step.output_scale, output) + _view(step.output_shift, output)
        state = state.after(table, k, corrected, noise)
    return table


def with_step(table: SamplerTable, k: int, step: Step) -> SamplerTable:
    """The table with one more correction of step k: outputs of the one before are scaled and shifted, inputs shifted."""
    channels = len(step.input_shift)
    old = table.correction or Correction.identity(table.calls, channels)
    scale, shift = torch.tensor(old.output_scale[k]), torch.tensor(old.output_shift[k])
    rows = {
        "input_shift": torch.tensor(old.input_shift[k]) + step.input_shift,
        "output_scale": scale * step.output_scale,
        "output_shift": shift * step.output_scale + step.output_shift,
    }
    changed = {
        name: (*getattr(old, name)[:k], tuple(row.tolist()), *getattr(old, name)[k + 1 :]) for name, row in rows.items()
    }
    return replace(table, correction=replace(old, **changed))


def channel_mean(x: Tensor) -> Tensor:
    """(M, C, ...) -> (C,)."""
    return x.mean([axis for axis in range(x.dim()) if axis != 1])


def _view(row: Tensor, like: Tensor) -> Tensor:
    return row.view(-1, *[1] * (like.dim() - 2))
