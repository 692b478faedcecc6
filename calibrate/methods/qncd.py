"""QNCD: channels that the time embedding inflates are shrunk before they are quantized; the mean error is subtracted.

Chu et al. 2024, arXiv 2403.19140. Intra noise: with g, h the affine parameters of the norm behind the embedding,
s = g max(1, (norm(embedding) - h) / g), averaged over the steps; the input of the next convolution is divided by s, its
weights are multiplied. |g| is kept away from zero, where the paper's s blows the weights up. Inter noise: the mean error of
the output is estimated every ten steps and subtracted until the next estimate. Differs: the paper estimates it while
sampling, by one more call on a latent noised anew; here FP32's output on the calibration samples is the truth, which costs
a device no call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import repeat

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.methods.base import Method, Record
from dq_toolchain.calibrate.methods.corrections import SAMPLES, Step, correct_in_order
from dq_toolchain.calibrate.methods.qdiffusion import QDIFFUSION
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.sampler.denoiser import Denoiser, outputs_at
from dq_toolchain.toolchain.sampler.table import SamplerTable

INTERVAL = 10
LABELS = 16
SMALLEST = 0.1
"""|g| is at least this share of its mean over the channels."""


@torch.no_grad()
def smoothing(fp32: nn.Module, table: SamplerTable, samples: Samples) -> Mapping[str, Tensor]:
    """Convolution -> (in,) divisors, for the second convolution of every residual block that an embedding reaches."""
    blocks = {
        name: block
        for name, block in fp32.named_modules()
        if isinstance(block, ResnetBlock2D) and isinstance(block.time_emb_proj, nn.Linear)
    }
    found: dict[str, list[Tensor]] = {name: [] for name in blocks}
    handles = (
        block.time_emb_proj.register_forward_hook(
            lambda _m, _i, out, name=name, norm=block.norm2: found[name].append(_inflation(norm, out))
        )
        for name, block in blocks.items()
    )
    some = samples.select(slice(0, LABELS))
    network = Denoiser(fp32, table, some.conditioning)
    with hooks(handles):  # the embedding depends on time and label alone, so any latent will do
        outputs_at(network, repeat(some.start))
    return {f"{name}.conv2": _divisor(block.norm2, found[name]) for name, block in blocks.items()}


def _inflation(norm: nn.GroupNorm, embedding: Tensor) -> Tensor:
    """(C,): mean over the rows of max(1, normalised embedding). A scale-and-shift projection's scale comes first."""
    normal = F.group_norm(embedding[:, : norm.num_channels], norm.num_groups, eps=norm.eps)
    return normal.clamp_min(1.0).mean(0)


def _divisor(norm: nn.GroupNorm, inflations: Sequence[Tensor]) -> Tensor:
    gain = norm.weight.abs()
    return torch.maximum(gain, SMALLEST * gain.mean()) * torch.stack(list(inflations)).mean(0)


def subtract_mean(artifact: Artifact, trajectories: Trajectories) -> tuple[Artifact, Record]:
    """The artifact whose table subtracts the output's mean error, one number for every INTERVAL steps."""
    some, estimates = trajectories.first(SAMPLES), list[float]()

    def none(k: int, x: Tensor) -> Tensor:
        return torch.zeros(x.shape[1])

    def after(k: int, q: Tensor, x: Tensor) -> Step:
        if k % INTERVAL == 0:
            estimates.append(float((q - some.outputs(k)).mean()))
        return replace(Step.nothing(q.shape[1]), output_shift=torch.full((q.shape[1],), -estimates[-1]))

    table = correct_in_order(artifact, some, none, after)
    return replace(artifact, table=table), {"qncd": {"mean_error": estimates}}


METHODS = (Method("qncd", "Chu et al. 2024, arXiv 2403.19140", QDIFFUSION, smooth=smoothing, finish=(subtract_mean,)),)
