"""The figures of one artifact: its integer simulation against the FP32 rollouts of the held-out seeds.

Two errors per step, kept apart: teacher-forced (fed the FP32 latents: what one step does) and free-running (fed its
own: what has accumulated).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.calibrate.compare.held_out import BATCH, HeldOut
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.network.channels_last import to_channels_last
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.metrics import psnr, relative_error, rollout_error, ssim, to_unit
from dq_toolchain.toolchain.models.decoder import Decode
from dq_toolchain.toolchain.sampler.denoiser import Denoiser, each_output_at
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork

PICTURES, DECODED = 16, 4
FORCED = 8
"""Teacher-forced errors hardly differ between samples: those of the first few are taken."""
QUARTILES = (0.5, 0.25, 0.75)


@dataclass(frozen=True)
class StepErrors:
    """Relative error per network call over held-out seeds, N numbers each."""

    median: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @classmethod
    def of(cls, errors: Tensor) -> StepErrors:
        """Median and quartiles of (N, S) errors."""
        quantiles = torch.tensor(QUARTILES, dtype=errors.dtype)
        return cls(*(tuple(row) for row in torch.quantile(errors, quantiles, dim=1).tolist()))


@dataclass(frozen=True)
class Evaluation:
    """What the simulation of an artifact does.

    Attributes:
        figures: name -> value, see ``picture_figures``.
        free_running: ||x^[k+1] - x*[k+1]|| / ||x*[k+1]|| after call k. teacher_forced: ||f^(x*[k]) - f(x*[k])|| / ||f(x*[k])||.
        samples: (S, C, H, W) float32, the simulation's.
    """

    figures: dict[str, float]
    free_running: StepErrors
    teacher_forced: StepErrors
    samples: Tensor


@torch.no_grad()
def evaluate(
    artifact: Artifact, held: HeldOut, context: Context, advance: Callable[..., None] = lambda n=1: None
) -> Evaluation:
    """Run the integer simulation on the held-out samples, BATCH side by side, with ``artifact.table`` and its correction.

    Args:
        context: of the calibration.
        advance: called ``calls_of(held)`` times.
    Raises:
        CalibrationError: the artifact makes another number of network calls than FP32, or its latents diverge.
    """
    table, calls = artifact.table, len(held.outputs)
    if table.calls != calls:
        raise CalibrationError(
            f"the artifact makes {table.calls} network calls and FP32 {calls}, which cannot be compared step by step; "
            "calibrate with the same steps"
        )
    device = context.simulation_device
    network = SimulatedNetwork(artifact).to(device)
    if device.type != "cpu" and held.final.dim() == 4:
        to_channels_last(network, device)
    free, samples = [], []
    for begin in range(0, len(held.samples), BATCH):
        rows = slice(begin, begin + BATCH)
        part = held.samples.select(rows)
        noise = None if part.step_noise is None else part.step_noise.to(device)
        latents = rollout(
            table,
            _denoiser(network, artifact, part, context),
            part.start.to(device),
            noise=noise,
            on_step=lambda _k, _x, _f: advance(1),
        ).cpu()
        _require_finite(latents)
        free.append(rollout_error(latents, held.latents[:, rows]))
        samples.append(latents[-1])
    forced = _teacher_forced(network, artifact, held, context, advance)
    final = torch.cat(samples)
    free_running = StepErrors.of(torch.cat(free, dim=1))
    figures = picture_figures(final, held.final) | {"error_final": free_running.median[-1]}
    return Evaluation(figures, free_running, StepErrors.of(forced), final)


def _teacher_forced(
    network: SimulatedNetwork, artifact: Artifact, held: HeldOut, context: Context, advance: Callable[..., None]
) -> Tensor:
    """(N, at most FORCED) relative errors of every network call on the FP32 latents."""
    first, device = slice(0, FORCED), context.simulation_device
    denoiser = _denoiser(network, artifact, held.samples.select(first), context)
    errors = []
    answers = each_output_at(denoiser, (latents[first].to(device) for latents in held.latents))
    for answer, outputs in zip(answers, held.outputs, strict=True):
        errors.append(relative_error(answer.cpu(), outputs[first]))
        advance(1)
    return torch.stack(errors)


def _denoiser(network: SimulatedNetwork, artifact: Artifact, samples: Samples, context: Context) -> Denoiser:
    conditioning = samples.conditioning.to(context.simulation_device)
    batch = None if context.activation_memory is None else context.simulation_batch
    return Denoiser(network, artifact.table, conditioning, artifact.guidance, network.set_step, batch)


def calls_of(held: HeldOut) -> int:
    """Network calls of one evaluation, for progress."""
    batches = -(-len(held.samples) // BATCH)
    return len(held.outputs) * (batches + 1)


def picture_figures(samples: Tensor, fp32: Tensor) -> dict[str, float]:
    """PSNR in dB (median, mean, 10th percentile, of the pooled squared error) and mean SSIM; (S, C, H, W) twice."""
    values = psnr(samples, fp32)
    return {
        "psnr_median": float(values.quantile(0.5)),
        "psnr_mean": float(values.mean()),
        "psnr_p10": float(values.quantile(0.1)),
        "psnr_pooled": float(-10 * torch.log10((10 ** (-values / 10)).mean())),
        "ssim_mean": float(ssim(samples, fp32).mean()),
    }


def pictures_of(samples: Tensor, fp32: Tensor, decode: Decode | None = None) -> Tensor:
    """The first PICTURES samples as pixels, of latents DECODED if there is a decoder: (at most so many, C, H, W) uint8."""
    if decode is not None:
        return ((decode(samples[:DECODED]) + 1) * 127.5).round().to(torch.uint8)
    return (to_unit(samples[:PICTURES], fp32[:PICTURES]) * 255).round().to(torch.uint8)


def _require_finite(latents: Tensor) -> None:
    """Raise CalibrationError naming the first call after which a latent (N+1, B, C, H, W) is NaN or infinite."""
    bad = ~latents.isfinite().flatten(2).all(2)
    if bad.any():
        step = int(bad.any(1).nonzero()[0]) - 1
        raise CalibrationError(
            f"the simulation's latents are not finite from step {step} on, for {int(bad[-1].sum())} of {bad.shape[1]} samples; "
            "use more bits or another method"
        )
