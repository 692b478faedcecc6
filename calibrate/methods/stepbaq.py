"""StepbaQ: the latent's accumulated error read as noise, so that the sampler goes back to the time that has as much.

StepbaQ (NeurIPS 2024). With mean m and variance v of the latent's error at a step, tau is the trained timestep whose alpha is
nearest alpha_t / (1 + v); the latent becomes sqrt(alpha_tau / alpha_t) (x - m), and the sampler steps from tau to the next time.
All of it is linear: new coefficients, another timestep, and shifts. Differs: the mean is per channel.
"""

from __future__ import annotations

import math
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
from dq_toolchain.toolchain.sampler.diffusers_scheduler import load_scheduler
from dq_toolchain.toolchain.sampler.table import SamplerTable

ON_CIRCLE = 1e-3
Level = tuple[float, float]
"""(sqrt(alpha), sqrt(1 - alpha)) of a time: the latent is their combination of image and noise."""


def check(table: SamplerTable) -> None:
    """Raise RecipeError unless every step goes from one latent and one output to the next, without noise."""
    history = len(table.a[0]) > 1 or len(table.b[0]) > 1
    scaled = any(scale != 1.0 for scale in table.input_scale)
    if history or table.stochastic or scaled or table.prediction_type == "flow_prediction":
        raise RecipeError(
            f"method stepbaq goes back in time by DDIM's formula, got {table.scheduler} "
            f"({table.prediction_type}); allowed is DDIMScheduler with eta 0; take another method or sampler"
        )


def correct(artifact: Artifact, trajectories: Trajectories) -> tuple[Artifact, Record]:
    """The artifact whose table steps from the times that the quantized network's latents look like."""
    some, table = trajectories.first(SAMPLES), artifact.table
    alphas = torch.as_tensor(
        load_scheduler(trajectories.context.model.scheduler_config).alphas_cumprod, dtype=torch.float64
    )
    x, taken, variances = some.start(), [], []
    network = some.quantized(artifact, table)
    for k in range(table.calls):
        error = x - some.latents(k)
        mean = channel_mean(error)
        variance = float((error - mean.view(-1, *[1] * (error.dim() - 2))).square().mean()) if k else 0.0
        now = int(table.timesteps[k])
        tau = _like(alphas, now, variance)
        table = _from(table, k, now, tau, mean, alphas)
        taken.append(tau)
        variances.append(variance)
        output = network.with_table(table)(x, k)
        x = table.advance(k, [x], [output])
    return replace(artifact, table=table), {"stepbaq": {"timesteps": taken, "variance": variances}}


def _like(alphas: Tensor, now: int, variance: float) -> int:
    """The trained timestep that a latent of ``now`` with an error of this variance looks like. One of noise alone, with which
    schedulers without terminal signal begin, is for latents of noise alone."""
    distance = (alphas - alphas[now] / (1 + variance)).abs()
    return int((distance.where(alphas > 0, math.inf) if alphas[now] > 0 else distance).argmin())


def _from(table: SamplerTable, k: int, now: int, tau: int, mean: Tensor, alphas: Tensor) -> SamplerTable:
    """The table whose step k starts at ``tau`` instead of ``now``, from the latent less ``mean`` (C,)."""
    start = _level(float(alphas[now]))
    end = _next_level(start, table.a[k][0], table.b[k][0], table.prediction_type)
    if abs(math.hypot(*end) - 1) > ON_CIRCLE:
        raise RecipeError(
            f"method stepbaq: step {k} of {table.scheduler} does not keep the variance, as DDIM's does; take "
            "DDIMScheduler or another method"
        )
    a, b = _coefficients(_level(float(alphas[tau])), end, table.prediction_type)
    scale = 1.0 if tau == now else math.sqrt(float(alphas[tau] / alphas[now]))  # of noise alone both are 0
    moved = replace(
        table,
        timesteps=_put(table.timesteps, k, float(tau)),
        input_scale=_put(table.input_scale, k, scale),
        a=_put(table.a, k, (a * scale,)),
        b=_put(table.b, k, (b,)),
    )
    shift = Step(torch.ones_like(mean), -a * scale / b * mean, -scale * mean)
    return with_step(moved, k, shift)


def _level(alpha: float) -> Level:
    return math.sqrt(alpha), math.sqrt(1 - alpha)


def _next_level(start: Level, a: float, b: float, kind: str) -> Level:
    """Where a step with coefficients a, b ends. Inverts ``_coefficients``."""
    signal, noise = start
    if kind == "epsilon":
        return a * signal, b + a * noise
    if kind == "sample":
        return b + a * signal, a * noise
    return a * signal - b * noise, a * noise + b * signal


def _coefficients(start: Level, end: Level, kind: str) -> Level:
    """DDIM's coefficients of latent and output from one level to another (Song et al. 2021, equation 12, eta 0)."""
    (signal, noise), (next_signal, next_noise) = start, end
    if kind == "epsilon":
        return next_signal / signal, next_noise - next_signal * noise / signal
    if kind == "sample":
        return next_noise / noise, next_signal - signal * next_noise / noise
    return signal * next_signal + noise * next_noise, signal * next_noise - noise * next_signal


def _put(row: tuple[Any, ...], k: int, value: Any) -> tuple[Any, ...]:
    return (*row[:k], value, *row[k + 1 :])


METHODS = (
    Method(
        "stepbaq",
        "Chu et al. 2024, NeurIPS 2024",
        QDIFFUSION,
        check=check,
        finish=(correct,),
        needs_timestep="samples at timesteps of its own",
    ),
)
