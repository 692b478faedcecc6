"""How much the error of a step has grown when the sampler ends.

Steps are not alike: with guidance the error of an early step doubles on its way to the picture, that of a late one is
halved. Fitting draws steps in that proportion, so that its iterations go where errors accumulate.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.sampler.rollout import Network, rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable

MEASURED = 10
"""At most so many steps are measured, the others interpolated: each costs a run of the sampler from there on."""
LEAST = 1e-3
"""No step is left out altogether."""


@torch.no_grad()
def error_growth(
    table: SamplerTable, exact: Network, quantized: Network, targets: Rollouts, noise: Tensor | None = None
) -> Tensor:
    """||x'[N] - x[N]|| / ||x'[k+1] - x[k+1]|| for every step k, median over samples.

    x is the FP32 trajectory; x' is x up to step k, where the quantized network is called, and FP32 again from there on.
    Using growth as a step's share of the iterations is ours; AccuQuant's objective meets it only within its horizon.

    Args:
        targets: of B samples, on the device of the networks. noise: (N, B, ...) or None.
    Returns:
        (N,) float32 on the CPU, positive; the last step's is 1.
    """
    calls = table.calls
    measured = sorted({round(k) for k in np.linspace(0, calls - 1, min(MEASURED, calls))})
    found = torch.stack([_growth_from(table, exact, quantized, targets, noise, k) for k in measured])
    growth = [max(value, LEAST) for value in read_on_host(found, "growth").tolist()]
    return torch.from_numpy(np.interp(np.arange(calls), measured, growth)).float()


def _growth_from(
    table: SamplerTable, exact: Network, quantized: Network, targets: Rollouts, noise: Tensor | None, k: int
) -> Tensor:
    before = targets.state(table, k, torch.arange(targets.latents.shape[1]))
    after = before.after(table, k, quantized(before.latent, k), noise)
    end = rollout(
        table,
        exact,
        after.latent,
        noise=noise,
        first=k + 1,
        past_latents=after.latents[1:],
        past_outputs=after.outputs,
    )[-1]
    made, grown = _norm(after.latent - targets.latents[k + 1]), _norm(end - targets.latents[-1])
    return (grown / made.clamp(min=torch.finfo(made.dtype).tiny)).median()


def _norm(error: Tensor) -> Tensor:
    norm: Tensor = error.flatten(1).norm(dim=1)
    return norm
