"""QVD: activation parameters of the temporal block that keep timesteps apart, and channels brought to alike ranges.

Tian et al. 2024, arXiv 2407.11585, made for video; no official code, known at second hand. What is said of it: temporal
features are skewed, so their quantizer is chosen by a score of how well timesteps can still be told apart (HTDQ), and the
ranges of scattered channels are integrated so that each channel uses more of the levels (SCRI). Ours are both formulas.
The score of a quantizer is the mean squared relative change of the distances between the features of any two steps: two
steps that become one count as much as any, however near they were. A channel's divisor is the square root of its share
of the largest range, the middle between leaving activations and weights as they are. It stands on Q-Diffusion's fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks.temporal import temporal_layers
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.methods.base import Method, Record
from dq_toolchain.calibrate.methods.qdiffusion import QDIFFUSION
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.qparams import IntegerType, Scheme, activation_type, fake_quantize, range_to_qparams
from dq_toolchain.toolchain.sampler.denoiser import Denoiser, outputs_at
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable

SAMPLES = 8
CANDIDATES = 90
"""Ranges that are tried, each a hundredth of the whole one smaller than the one before."""
SMALLEST = 0.01
"""A channel's range is at least this share of the largest."""


@torch.no_grad()
def integrate_ranges(fp32: nn.Module, table: SamplerTable, samples: Samples) -> Mapping[str, Tensor]:
    """Convolution -> (in,) divisors, for both convolutions of every residual block, from a few FP32 runs."""
    names = [
        f"{name}.{part}"
        for name, block in fp32.named_modules()
        if isinstance(block, ResnetBlock2D)
        for part in ("conv1", "conv2")
    ]
    largest: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor) -> None:
        found = x.abs().amax([axis for axis in range(x.dim()) if axis != 1])
        largest[name] = torch.maximum(largest[name], found) if name in largest else found

    handles = (
        fp32.get_submodule(name).register_forward_pre_hook(lambda _module, inputs, name=name: keep(name, inputs[0]))
        for name in names
    )
    some = samples.select(slice(0, SAMPLES))
    with hooks(handles):
        rollout(table, Denoiser(fp32, table, some.conditioning), some.start, noise=some.step_noise)
    return {name: divisor(ranges) for name, ranges in largest.items()}


def divisor(ranges: Tensor) -> Tensor:
    """(C,) largest absolute values of channels -> (C,) what they are divided by, at most 1."""
    largest = ranges.max().clamp_min(torch.finfo(ranges.dtype).tiny)
    return (ranges / largest).clamp_min(SMALLEST).sqrt()


def keep_apart(artifact: Artifact, trajectories: Trajectories) -> tuple[Artifact, Record]:
    """The artifact with parameters of the temporal block that keep the steps of each step group apart."""
    features = _features(trajectories.first(SAMPLES))
    scale, zero_point, scores = artifact.scale.clone(), artifact.zero_point.clone(), dict[str, float]()
    for index, site in enumerate(artifact.sites):
        if site.layer not in features or site.operand != "input":
            continue
        for group, steps in enumerate(artifact.step_groups):
            if len(steps) > 1:
                found = most_apart(features[site.layer][list(steps)], activation_type(site.bits), site.scheme)
                scale[group, index], zero_point[group, index], scores[site.layer] = found
    return replace(artifact, scale=scale, zero_point=zero_point), {"temporal_discriminability": scores}


def most_apart(features: Tensor, kind: IntegerType, scheme: Scheme) -> tuple[Tensor, Tensor, float]:
    """scale () and zero_point () with the best score, and that score: (T, R, F) features of T steps, in R rows each."""
    low, high = features.min(), features.max()
    tried = []
    for i in range(CANDIDATES):
        scale, zero_point = range_to_qparams(low * (1 - 0.01 * i), high * (1 - 0.01 * i), kind, scheme)
        score = discriminability(features, fake_quantize(features, scale, zero_point, kind))
        tried.append((scale, zero_point, score))
    return max(tried, key=lambda candidate: candidate[2])


def discriminability(features: Tensor, quantized: Tensor) -> float:
    """At most 0, where all distances between steps are as they were: (T, R, F) each."""
    before, after = (torch.cdist(x.transpose(0, 1), x.transpose(0, 1)) for x in (features, quantized))
    apart = before > 0
    return -float(((after[apart] - before[apart]) / before[apart]).square().mean()) if apart.any() else 0.0


@torch.no_grad()
def _features(trajectories: Trajectories) -> dict[str, Tensor]:
    """layer -> (N, R, F) inputs of the temporal block at every step, R samples (twice as many with guidance)."""
    fp32 = trajectories.context.network
    found: dict[str, list[Tensor]] = {name: [] for name in temporal_layers(fp32)}
    handles = (
        fp32.get_submodule(name).register_forward_pre_hook(
            lambda _module, inputs, name=name: found[name].append(inputs[0].detach().flatten(1))
        )
        for name in found
    )
    with hooks(handles):
        outputs_at(trajectories.exact(), trajectories.each_latent())
    return dict(_read(found.items()))


def _read(found: Iterable[tuple[str, list[Tensor]]]) -> Iterable[tuple[str, Tensor]]:
    for name, steps in found:
        yield name, read_on_host(torch.stack(steps), "features of the temporal block")


METHODS = (
    Method(
        "qvd",
        "Tian et al. 2024, arXiv 2407.11585, at second hand",
        QDIFFUSION,
        smooth=integrate_ranges,
        finish=(keep_apart,),
        needs_timestep="quantizes the time embedding",
    ),
)
