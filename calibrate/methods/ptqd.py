"""PTQD: the part of the output's error that follows the output is divided away, its mean subtracted.

He et al. 2023, arXiv 2305.10657. At FP32 latents, with q the quantized output and r FP32's, q - r = k r + residual: k is the slope
(not below 0), mu the residual's mean per channel, and the sampler gets (q - mu) / (1 + k). Where the sampler adds noise, the
residual's own variance is taken from it: c'^2 = max(0, c^2 - (b s / (1 + k))^2), s the residual's standard deviation (the paper's
lambda is the table's b). As the paper and unlike its code, mu is the residual's, and the direction term keeps its coefficient.
Differs: where the line explains little (R^2 below 0.05), k is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.methods.base import Method, Record
from dq_toolchain.calibrate.methods.corrections import SAMPLES, Step, channel_mean, with_step
from dq_toolchain.calibrate.methods.qdiffusion import QDIFFUSION
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.denoiser import each_output_at

LEAST_R2 = 0.05


@dataclass(frozen=True)
class NoiseFit:
    """q - r = slope r + mean + residual: ``mean`` (C,), ``deviation`` of the residual, share of variance explained."""

    slope: float
    mean: Tensor
    deviation: float
    r2: float


def fit_noise(q: Tensor, r: Tensor) -> NoiseFit:
    """The fit over all elements of (M, C, H, W) outputs."""
    error = (q - r).double()
    centred, base = error - error.mean(), r.double() - r.double().mean()
    slope = float((centred * base).sum() / base.square().sum().clamp_min(1e-30))
    r2 = float(slope**2 * base.square().sum() / centred.square().sum().clamp_min(1e-30))
    slope = slope if r2 >= LEAST_R2 and slope > 0 else 0.0
    residual = error - slope * r.double()
    mean = channel_mean(residual)
    spread = residual - mean.view(-1, *[1] * (residual.dim() - 2))
    return NoiseFit(slope, mean.float(), float(spread.std()), r2)


@torch.no_grad()
def correct(artifact: Artifact, trajectories: Trajectories) -> tuple[Artifact, Record]:
    """The artifact whose table divides out the correlated error and, where there is noise, takes the rest from it."""
    some, table = trajectories.first(SAMPLES), artifact.table
    network, fits, noise = some.quantized(artifact, artifact.table), [], list(table.c)
    for k, output in enumerate(each_output_at(network, some.each_latent())):
        found = fit_noise(output, some.outputs(k))
        fits.append(found)
        divisor = torch.full_like(found.mean, 1 / (1 + found.slope))
        table = with_step(table, k, Step(divisor, -found.mean * divisor, torch.zeros_like(found.mean)))
        taken = table.b[k][0] * found.deviation / (1 + found.slope)
        noise[k] = math.sqrt(max(0.0, noise[k] ** 2 - taken**2))
    record = {"slope": [f.slope for f in fits], "r2": [f.r2 for f in fits], "deviation": [f.deviation for f in fits]}
    return replace(artifact, table=replace(table, c=tuple(noise))), {"ptqd": record}


METHODS = (Method("ptqd", "He et al. 2023, arXiv 2305.10657", QDIFFUSION, finish=(correct,)),)
