"""Q-Drift: the output's error read as noise that each step adds, and the drift that keeps the latents' distribution.

Ryu et al. 2026, arXiv 2603.18095; no official code, formulas at second hand (a public program that applies the paper's
algorithm). A step x' = a x + b f with an error of variance V in f adds noise of variance b^2 V. Half of that times the
score, added to x', keeps the distribution of the latents. For Euler steps of a network that predicts noise this is the
program's form, f (1 + |b| V / (2 sigma)). V is the error's variance per step and channel, at FP32 latents. Ours is the
score for networks that predict something else: score = -noise / sigma, and the noise is a sum of latent and output.
Differs: statistics are from 64 samples, not from 5, since pictures may be small; the latent's share of the score is one
number per step, the mean over the channels; a channel has no drift at steps whose error hides the noise that its drift
is estimated from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.methods.base import Method, Record
from dq_toolchain.calibrate.methods.corrections import SAMPLES, Step, channel_mean, with_step
from dq_toolchain.calibrate.methods.qdiffusion import QDIFFUSION
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.denoiser import each_output_at
from dq_toolchain.toolchain.sampler.diffusers_scheduler import load_scheduler
from dq_toolchain.toolchain.sampler.table import SamplerTable

Level = tuple[float, float]
"""(alpha, sigma) of what the network is given: alpha times image plus sigma times noise."""
LARGEST = 1.0
"""Variance of the error in the noise that an output stands for, as a share of that of the noise."""


def check(table: SamplerTable) -> None:
    """Raise RecipeError unless every step goes from one latent and one output to the next, and the noise in it is known."""
    history = len(table.a[0]) > 1 or len(table.b[0]) > 1
    other_scale = table.scheduler.startswith("EDM")  # its input's scale is not that of a sum of image and noise
    if history or other_scale or table.prediction_type == "consistency":
        raise RecipeError(
            "method q-drift corrects samplers that do not look back and know the noise in a latent, got "
            f"{table.scheduler} ({table.prediction_type}); take DDIMScheduler, EulerDiscreteScheduler or "
            "FlowMatchEulerDiscreteScheduler with --scheduler, or another method"
        )


@torch.no_grad()
def correct(artifact: Artifact, trajectories: Trajectories) -> tuple[Artifact, Record]:
    """The artifact whose table carries the drift."""
    some, table, variances = trajectories.first(SAMPLES), artifact.table, list[list[float]]()
    noise_levels = levels(table, artifact.scheduler_config)
    network = some.quantized(artifact, artifact.table)
    for k, output in enumerate(each_output_at(network, some.each_latent())):
        error = output - some.outputs(k)
        variance = channel_mean(error.square()) - channel_mean(error).square()
        table = drifting(table, k, variance.clamp_min(0.0), noise_levels[k])
        variances.append(variance.tolist())
    return replace(artifact, table=table), {"q_drift": {"variance": variances}}


def drifting(table: SamplerTable, k: int, variance: Tensor, level: Level) -> SamplerTable:
    """The table whose step k expects an error of ``variance`` (C,) in the network's output."""
    scale, b = table.input_scale[k], table.b[k][0]
    if not b or not level[1]:
        return table
    of_latent, of_output = noise_parts(table.prediction_type, level)
    variance = variance.where(of_output**2 * variance <= LARGEST, 0.0)
    half = variance * (b**2 / 2) * scale / level[1]
    latent = table.a[k][0] - float(half.mean()) * of_latent * scale
    a = (*table.a[:k], (latent,), *table.a[k + 1 :])
    nothing = torch.zeros_like(variance)
    return with_step(replace(table, a=a), k, Step(1 - half * of_output / b, nothing, nothing))


def noise_parts(kind: str, level: Level) -> tuple[float, float]:
    """(p, q) with noise = p x + q f, x what the network is given and f what it predicts."""
    alpha, sigma = level
    if kind == "epsilon":
        return 0.0, 1.0
    if kind == "sample":
        return 1 / sigma, -alpha / sigma
    return (sigma, alpha) if kind == "v_prediction" else (1.0, alpha)


def levels(table: SamplerTable, scheduler_config: Mapping[str, Any]) -> list[Level]:
    """Of every step: from the timestep for flows, from the input's scale where latents grow, else from the trained alphas."""
    scheduler = load_scheduler(scheduler_config)
    if table.prediction_type == "flow_prediction":
        sigmas = [t / scheduler.config.num_train_timesteps for t in table.timesteps]
        return [(1 - sigma, sigma) for sigma in sigmas]
    if any(scale != 1.0 for scale in table.input_scale):
        return [(scale, max(0.0, 1 - scale**2) ** 0.5) for scale in table.input_scale]
    alphas = scheduler.alphas_cumprod.double()[[int(t) for t in table.timesteps]]
    return [(float(alpha**0.5), float((1 - alpha) ** 0.5)) for alpha in alphas]


METHODS = (
    Method("q-drift", "Ryu et al. 2026, arXiv 2603.18095, at second hand", QDIFFUSION, check=check, finish=(correct,)),
)
