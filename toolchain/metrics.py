"""Distances between latents and between pictures: relative L2, PSNR and SSIM, one value per sample.

The report writer computes its claims with these and ``verdict`` recomputes them, so the two cannot drift apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_MSE = 1e-10
"""PSNR is capped at 100 dB: identical pictures would otherwise give infinity, which JSON cannot hold."""

PICTURE_CHANNELS = (1, 3)
PICTURE_AXES = 4
SMALL_SIDE = 16


def relative_error(x: Tensor, reference: Tensor) -> Tensor:
    """||x - reference|| / ||reference|| per sample: (S, ...) and (S, ...) -> (S,) float64. NaN stays NaN."""
    wanted = reference.to(torch.float64).flatten(1)
    difference = x.to(torch.float64).flatten(1) - wanted
    error: Tensor = difference.norm(dim=1) / wanted.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    return error


def rollout_error(latents: Tensor, reference: Tensor) -> Tensor:
    """Relative error of the latents after every call: (N+1, S, C, H, W) twice -> (N, S) float64; start left out."""
    return torch.stack([relative_error(x, y) for x, y in zip(latents[1:], reference[1:], strict=True)])


def to_unit(x: Tensor, reference: Tensor) -> Tensor:
    """Samples as pictures in [0, 1], (S, C, H, W) float32; samples of other axes keep them.

    One or three channels are pixels in [-1, 1]: (x + 1) / 2, clamped. Other channel counts and axes are an autoencoder's
    latents, which have no fixed range: there the range is that of ``reference`` (S, C, H, W), sample by sample.
    """
    if x.dim() == PICTURE_AXES and x.shape[1] in PICTURE_CHANNELS:
        return ((x.to(torch.float32) + 1) / 2).clamp(0, 1)
    axes = tuple(range(1, reference.dim()))
    low = reference.to(torch.float32).amin(axes, keepdim=True)
    width = reference.to(torch.float32).amax(axes, keepdim=True) - low
    return ((x.to(torch.float32) - low) / width.clamp_min(torch.finfo(torch.float32).tiny)).clamp(0, 1)


def psnr(x: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB per sample, data range 1: (S, C, ...) latents twice -> (S,) float64.

    At most 100 dB (SMALLEST_MSE). NaN in ``x`` gives NaN.
    """
    difference = to_unit(x, reference).to(torch.float64) - to_unit(reference, reference).to(torch.float64)
    mse = difference.square().flatten(1).mean(1)
    return -10 * torch.log10(mse.clamp_min(SMALLEST_MSE))


def ssim(x: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity per sample, data range 1: (S, C, H, W) latents twice -> (S,) float64.

    Source: Wang et al. 2004, as torchmetrics computes it (Gaussian window, sigma 1.5, 11 pixels); differs: below
    16 pixels a side the window is sigma 0.5, 5 pixels, because the border of the usual one leaves nothing to average.
    NaN of samples that are no pictures, such as (S, C, T): they have no such windows.
    """
    if x.dim() != PICTURE_AXES:
        return torch.full((len(x),), torch.nan, dtype=torch.float64)
    from torchmetrics.functional.image import structural_similarity_index_measure  # takes seconds

    sigma = 1.5 if min(x.shape[-2:]) >= SMALL_SIDE else 0.5
    value: Tensor = structural_similarity_index_measure(  # type: ignore[assignment]
        to_unit(x, reference), to_unit(reference, reference), sigma=sigma, data_range=1.0, reduction="none"
    )
    return value.to(torch.float64).reshape(-1)


def median(values: Tensor) -> Tensor:
    """Median over the last axis, the mean of the middle two if even; NaN if any value is: (..., S) -> (...)."""
    return values.quantile(0.5, dim=-1)
