"""What the fit minimises and how it is validated: per-sample errors of latents against the FP32 trajectory."""

from __future__ import annotations

import torch
from torch import Tensor

from dq_toolchain.calibrate.multistep.gradients import Loss
from dq_toolchain.calibrate.work.host_reads import read_on_host

FLOOR = 1e-5
"""Added to a mean squared error under a root or a logarithm: -50 dB, below any quantization error of interest."""


def robust_loss(targets: Tensor, first: int, length: int, of: int | None = None) -> Loss:
    """Root-mean-square error of each sample at every step of a segment, averaged over steps and samples.

    The root makes it robust: a sample that went astray pulls with the force of any other instead of taking the whole
    gradient. AccuQuant compares the end of a group only; comparing every step of the segment gives each step's
    parameters their own signal as well.

    Args:
        targets: (length + 1, B, C, H, W), FP32 latents at steps first .. first + length.
        of: samples that the average is over, of which these are a part; None: B.
    """

    def loss(k: int, x: Tensor) -> tuple[Tensor, Tensor]:
        error = x - targets[k - first]
        root = (error.flatten(1).square().mean(1) + FLOOR**2).sqrt()
        scale = 1.0 / ((len(x) if of is None else of) * length)
        gradient = error / (root.view(-1, *[1] * (x.dim() - 1)) * error[0].numel()) * scale
        return root.sum() * scale, gradient

    return loss


def final_error(samples: Tensor, targets: Tensor) -> float:
    """Mean over samples of log10 of the mean squared error: minus a tenth of the mean PSNR, up to a constant."""
    mse = (samples - targets).flatten(1).square().mean(1) + FLOOR**2
    return float(read_on_host(torch.log10(mse).mean(), "validation"))
