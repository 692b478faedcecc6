"""TCEC: the latent's accumulated error, estimated from this and the previous output, is taken out at every step.

Timestep-aware cumulative error compensation (Liu et al. 2025, arXiv 2508.12094); no official code, formulas at second
hand. The paper writes the error that has accumulated as a sum over steps of the sampler's coefficients times the
outputs' errors, drops the network's Jacobian, keeps the last two steps, and takes an output's error to be K times the
output, K per step and channel by ridge regression. Ours: both factors are regressed at once on the error of the latent
after the step, along the quantized network's own run, corrections of earlier steps in force. So what an earlier step
took out is not counted again, and the Jacobian is in the data. Differs: the factor of the previous output is one number
per step, as the sampler table holds it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.methods.base import Method, Record
from dq_toolchain.calibrate.methods.corrections import SAMPLES, Step, with_step
from dq_toolchain.calibrate.methods.qdiffusion import QDIFFUSION
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.rollout import State
from dq_toolchain.toolchain.sampler.table import SamplerTable

RIDGE = 1e-2
"""Weight of the squared factors, as a share of the output's mean square."""


@torch.no_grad()
def compensate(artifact: Artifact, trajectories: Trajectories) -> tuple[Artifact, Record]:
    """The artifact whose table takes the estimated error out of every latent."""
    some, table = trajectories.first(SAMPLES), artifact.table
    state, noise, previous = State((some.start(),)), some.noise(), list[float]()
    network, scales = some.quantized(artifact, table), list[list[float]]()
    for k in range(table.calls):
        output = network.with_table(table)(state.latent, k)
        error = state.after(table, k, output, noise).latent - some.latents(k + 1)
        now, before = factors(error, output, state.outputs[0] if state.outputs else None, table.b[k][0])
        table = compensated(table, k, now, before)
        corrected = output * (1 - now).view(-1, *[1] * (output.dim() - 2))
        state = _after(state, table, k, corrected, noise)
        scales.append((1 - now).tolist())
        previous.append(before)
    return replace(artifact, table=table), {"tcec": {"output_scale": scales, "previous": previous}}


def factors(error: Tensor, output: Tensor, previous: Tensor | None, b: float) -> tuple[Tensor, float]:
    """K (C,) of this output and P of the previous one: ``error`` of the next latent is near b K output - P previous.

    Args:
        error, output, previous: (M, C, H, W); previous is None at the first step.
        b: of this output in the sampler table; 0 leaves nothing to K.
    """
    e, q = (x.double().transpose(0, 1).flatten(1) for x in (error, output))
    if previous is None:
        return _ridge((b * e * q).sum(1), (b * q).square().sum(1)).float(), 0.0
    p = previous.double().transpose(0, 1).flatten(1)
    # of two regressors of which one has a factor per channel, that one is eliminated first
    of_q = _ridge((b * e * q).sum(1), (b * q).square().sum(1))[:, None] * b * q
    p_of_q = _ridge((b * p * q).sum(1), (b * q).square().sum(1))[:, None] * b * q
    rest, alone = e - of_q, p - p_of_q
    before = float(-_ridge((rest * alone).sum(), (alone.square()).sum() + RIDGE * p.square().sum()))
    return _ridge((b * (e + before * p) * q).sum(1), (b * q).square().sum(1)).float(), before


def compensated(table: SamplerTable, k: int, now: Tensor, before: float) -> SamplerTable:
    """The table whose step k scales its output by 1 - ``now`` (C,) and adds ``before`` times the previous output."""
    nothing = torch.zeros_like(now)
    table = with_step(table, k, Step(1 - now, nothing, nothing))
    if not before:
        return table
    rows = [(*row, 0.0) if len(row) == 1 else row for row in table.b]
    rows[k] = (rows[k][0], rows[k][1] + before, *rows[k][2:])
    return replace(table, b=tuple(rows))


def _ridge(product: Tensor, square: Tensor) -> Tensor:
    return product / (square * (1 + RIDGE)).clamp_min(1e-30)


def _after(state: State, table: SamplerTable, k: int, output: Tensor, noise: Tensor | None) -> State:
    """The previous output is always kept, which the table looks back on only from the first step that has a factor for it."""
    following = state.after(table, k, output, noise)
    return State(following.latents, (output, *state.outputs)[: max(2, len(table.b[0]))])


METHODS = (Method("tcec", "Liu et al. 2025, arXiv 2508.12094, at second hand", QDIFFUSION, finish=(compensate,)),)
