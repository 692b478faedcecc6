"""FP32 rollouts of several steps at once: the latents of a window of steps are guessed, and refined until they hold.

ParaDiGMS (Shih et al. 2023, arXiv 2305.16317). The network is called at all guessed latents of a window in one batch; the
outputs give new latents; steps whose latents no longer change are done, and the window moves on by as many. At least one
step is done per call, so that there are never more calls than steps, and few where outputs change slowly. Differs: new
latents follow from the outputs by the sampler table itself, not by summed differences of latents. So the linear part of
a step is exact, and samplers that look back or add stored noise are covered like any other.

Tolerance: every latent at which a recorded output was computed is, for each sample, within ``TOLERANCE`` (relative, root
mean square) of the one that the table makes of the recorded outputs before it. A recorded output is the network's at the
recorded latent, as in a rollout step by step; with a tolerance of 0 the two are one, but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.sampler.transfer import to_device

TOLERANCE = 1e-4
SAME = 0.02
"""Relative difference of a network's outputs that comes of arithmetic alone, bfloat16 included."""


@torch.no_grad()
def picard_rollout(
    denoiser: Denoiser,
    start: Tensor,
    *,
    window: int,
    noise: Tensor | None = None,
    tolerance: float = TOLERANCE,
    advance: Advance = lambda n=1: None,
) -> tuple[Tensor, Tensor]:
    """Latents (N + 1, B, C, H, W) and outputs (N, B, C, H, W) of a rollout, on the device of ``start``.

    Args:
        denoiser: FP32, on B samples; its ``set_step`` is not told of steps, and its table has no correction.
        start: (B, C, H, W), noise times ``table.init_noise_sigma``.
        window: steps that are computed at once, at most.
        noise: (N, B, C, H, W) standard normal; only needed if the table is stochastic.
        advance: told of steps that are done.
    """
    table = denoiser.table
    made, outputs = [start], list[Tensor]()  # by the table from the outputs, and recorded outputs
    seen = list[Tensor]()  # latents at which those were computed
    guesses = [start] * min(window, table.calls)
    while len(outputs) < table.calls:
        first = len(outputs)
        found = list(outputs_of_steps(denoiser, torch.stack(guesses), first))
        beyond = min(window, table.calls - first - len(found))  # there the output is taken to stay as it is
        ahead = _follow(table, made, [*outputs, *found, *[found[-1]] * beyond], noise)
        done = _unchanged(guesses[1:], ahead[1 : len(guesses)], tolerance)
        seen += guesses[:done]
        outputs += found[:done]
        made += ahead[1 : done + 1]
        guesses = ahead[done : done + min(window, table.calls - len(outputs))]
        advance(done)
    return torch.stack([*seen, made[-1]]), torch.stack(outputs)


@torch.no_grad()
def check_rows_apart(denoiser: Denoiser, x: Tensor) -> None:
    """Raise CalibrationError unless the first and the last step of a batch give what each gives alone, at latents x (1, ...)."""
    ends = torch.tensor([0, denoiser.table.calls - 1])
    both = replace(denoiser, conditioning=denoiser.conditioning.select(to_device(torch.zeros_like(ends), x.device)))
    together = outputs_of_rows(both, torch.cat([x, x]), ends)
    alone = torch.cat([denoiser(x, int(k)) for k in ends])
    apart = (together - alone).flatten(1).norm(dim=1) / alone.flatten(1).norm(dim=1).clamp_min(1e-30)
    worst = float(read_on_host(apart.max(), "check of steps in one batch"))
    if not worst <= SAME:
        raise CalibrationError(
            "[run] parallel_steps needs a network that takes rows of different timesteps in one batch; this one gives outputs that "
            f"differ by {worst:.2g} (relative) from those of each row alone, allowed is {SAME}; leave parallel_steps at 1"
        )


def outputs_of_steps(denoiser: Denoiser, x: Tensor, first: int) -> Tensor:
    """f[k] of P steps from ``first`` on, in one call of the network: (P, B, C, H, W) latents -> the same shape."""
    steps, count = x.shape[:2]
    rows = to_device(torch.arange(count).repeat(steps), x.device)
    every = replace(denoiser, conditioning=denoiser.conditioning.select(rows))
    step = torch.arange(first, first + steps).repeat_interleave(count)
    return outputs_of_rows(every, x.flatten(0, 1), step).view_as(x)


def outputs_of_rows(denoiser: Denoiser, x: Tensor, step: Tensor) -> Tensor:
    """The network's outputs after guidance, each row at a step of its own, in one call: (R, C, H, W) -> the same shape.

    Args:
        denoiser: FP32, on R samples.
        step: (R,) int64, on the CPU.
    """
    table = denoiser.table
    scale, time = (
        to_device(torch.tensor(row, dtype=x.dtype)[step], x.device) for row in (table.input_scale, table.timesteps)
    )
    sample = scale.view(-1, *[1] * (x.dim() - 1)) * x
    if denoiser.guidance == 1.0:
        return call_network(denoiser.network, sample, time, denoiser.conditioning.cond).to(x.dtype)
    keywords = denoiser.conditioning.doubled
    out = call_network(denoiser.network, torch.cat([sample, sample]), time.repeat(2), keywords).to(x.dtype)
    unconditional, conditional = out.chunk(2)
    return unconditional + denoiser.guidance * (conditional - unconditional)


def _follow(
    table: SamplerTable, made: Sequence[Tensor], outputs: Sequence[Tensor], noise: Tensor | None
) -> list[Tensor]:
    """The last of ``made`` and the latents behind it, as far as there are outputs."""
    latents, begin = list(made), len(made) - 1
    for k in range(begin, len(outputs)):
        past = outputs[max(0, k + 1 - len(table.b[0])) : k + 1]
        step_noise = None if noise is None else noise[k]
        latents.append(table.advance(k, latents[: -len(table.a[0]) - 1 : -1], past[::-1], step_noise))
    return latents[begin:]


def _unchanged(guesses: Sequence[Tensor], made: Sequence[Tensor], tolerance: float) -> int:
    """How many steps are done: the first, and those behind it whose guess was right for every sample."""
    if not guesses:
        return 1
    guessed, right = torch.stack(list(guesses)).flatten(2), torch.stack(list(made)).flatten(2)
    close = ((guessed - right).norm(dim=2) <= tolerance * right.norm(dim=2)).all(1)
    return 1 + int(read_on_host(close.int().cumprod(0).sum(), "steps of a window that are done"))
