"""TAC: outputs rescaled and inputs shifted, per step and channel, by statistics of the quantized network's own run.

Timestep-aware correction (TAC-Diffusion, Yao et al. 2024, arXiv 2407.03917); formulas at second hand, there is no official code.
Noise estimation reconstruction: with q the quantized and r FP32's output at a step, K minimises
(1 - l1) sum (K q - r)^2 + l1 n sum (K q / r - 1)^2 + l2 n (K - 1)^2, in closed form. Input bias correction: the mean error of the
latent is taken from the network's input. Differs: K is fitted where |r| is above its mean, since the relative term is
governed by outputs near zero otherwise, and applied to the whole channel, since a mask is not linear.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.methods.base import Method, Record
from dq_toolchain.calibrate.methods.corrections import SAMPLES, Step, channel_mean, correct_in_order
from dq_toolchain.calibrate.methods.qdiffusion import QDIFFUSION
from dq_toolchain.toolchain.formats.artifact import Artifact

RELATIVE, TIE = 0.5, 0.1
"""l1 and l2."""


def correct(artifact: Artifact, trajectories: Trajectories) -> tuple[Artifact, Record]:
    """The artifact whose table corrects inputs and outputs."""
    some = trajectories.first(SAMPLES)
    scales = []

    def before(k: int, x: Tensor) -> Tensor:
        return -channel_mean(x - some.latents(k)) * artifact.table.input_scale[k]

    def after(k: int, q: Tensor, _x: Tensor) -> Step:
        scale = torch.stack([best_scale(q[:, c], some.outputs(k)[:, c]) for c in range(q.shape[1])])
        scales.append(scale.tolist())
        return replace(Step.nothing(q.shape[1]), output_scale=scale)

    table = correct_in_order(artifact, some, before, after)
    return replace(artifact, table=table), {"tac": {"output_scale": scales}}


def best_scale(q: Tensor, r: Tensor) -> Tensor:
    """K of one channel, (): q and r of any equal shape."""
    large = r.abs() > r.abs().mean()
    q, r = q[large].double(), r[large].double()
    count = len(q)
    above = (1 - RELATIVE) * (q * r).sum() + RELATIVE * count * (q / r).sum() + TIE * count
    below = (1 - RELATIVE) * q.square().sum() + RELATIVE * count * (q / r).square().sum() + TIE * count
    return (above / below).float() if count else torch.ones(())


METHODS = (Method("tac", "Yao et al. 2024, arXiv 2407.03917, at second hand", QDIFFUSION, finish=(correct,)),)
