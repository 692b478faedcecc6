"""Distances between latents and between pictures: relative L2, PSNR and SSIM, one value per sample.

The report writer computes its claims with these and ``verdict`` recomputes them, so the two cannot drift apart.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_MSE = 1e-10
"""PSNR is capped at 100 dB: identical pictures would otherwise give infinity, which JSON cannot hold."""

PICTURE_CHANNELS = (1, 3)
PICTURE_AXES = 4
SMALLEST_FLOAT32 = 2.0**-126
"""The smallest normal number."""
SMALL_SIDE = 16
LUMINANCE, CONTRAST = 0.01**2, 0.03**2
"""C1 and C2 of SSIM at data range 1."""


def relative_error(x: Tensor, reference: Tensor) -> Tensor:
    """||x - reference|| / ||reference|| per sample: (S, ...) and (S, ...) -> (S,) float64. NaN stays NaN."""
    wanted = reference.double().flatten(1)
    difference = x.double().flatten(1) - wanted
    error: Tensor = difference.norm(dim=1) / wanted.norm(dim=1).clamp_min(sys.float_info.min)
    return error


def rollout_error(latents: Tensor, reference: Tensor) -> Tensor:
    """Relative error of the latents after every call: (N+1, S, C, H, W) twice -> (N, S) float64; start left out."""
    import torch  # whoever measures has it; whoever only refuses does not wait for it

    return torch.stack([relative_error(x, y) for x, y in zip(latents[1:], reference[1:], strict=True)])


def to_unit(x: Tensor, reference: Tensor) -> Tensor:
    """Samples as pictures in [0, 1], (S, C, H, W) float32; samples of other axes keep them.

    One or three channels are pixels in [-1, 1]: (x + 1) / 2, clamped. Other channel counts and axes are an autoencoder's
    latents, which have no fixed range: there the range is that of ``reference`` (S, C, H, W), sample by sample.
    """
    if x.dim() == PICTURE_AXES and x.shape[1] in PICTURE_CHANNELS:
        return ((x.float() + 1) / 2).clamp(0, 1)
    axes = tuple(range(1, reference.dim()))
    low = reference.float().amin(axes, keepdim=True)
    width = reference.float().amax(axes, keepdim=True) - low
    return ((x.float() - low) / width.clamp_min(SMALLEST_FLOAT32)).clamp(0, 1)


def psnr(x: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB per sample, data range 1: (S, C, ...) latents twice -> (S,) float64.

    At most 100 dB (SMALLEST_MSE). NaN in ``x`` gives NaN.
    """
    difference = to_unit(x, reference).double() - to_unit(reference, reference).double()
    mse = difference.square().flatten(1).mean(1)
    return -10 * mse.clamp_min(SMALLEST_MSE).log10()


def ssim(x: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity per sample, data range 1: (S, C, H, W) latents twice -> (S,) float64.

    Source: Wang et al. 2004, equation 13, with the Gaussian window of the paper (sigma 1.5, 11 pixels) over the picture
    reflected at its borders, step by step as torchmetrics computes it, which takes three seconds to import; differs: below
    16 pixels a side the window is sigma 0.5, 5 pixels, because the border of the usual one leaves nothing to average.
    NaN of samples that are no pictures, such as (S, C, T): they have no such windows.
    """
    import torch
    from torch.nn import functional

    if x.dim() != PICTURE_AXES:
        return torch.full((len(x),), torch.nan, dtype=torch.float64)

    window = _gaussian_window(1.5 if min(x.shape[-2:]) >= SMALL_SIDE else 0.5)
    border = len(window) // 2
    mine, wanted = (
        functional.pad(picture, (border,) * 4, mode="reflect")
        for picture in (to_unit(x, reference), to_unit(reference, reference))
    )
    kernel = window.expand(x.shape[1], 1, -1, -1)
    sums = functional.conv2d(
        torch.cat((mine, wanted, mine * mine, wanted * wanted, mine * wanted)), kernel, groups=x.shape[1]
    )
    mean, mean_wanted, square, square_wanted, product = sums.split(len(x))
    both, squares = mean * mean_wanted, (mean.pow(2), mean_wanted.pow(2))
    variances = (square - squares[0]).clamp(min=0.0) + (square_wanted - squares[1]).clamp(min=0.0)
    shape = 2 * (product - both) + CONTRAST
    value: Tensor = ((2 * both + LUMINANCE) * shape) / ((squares[0] + squares[1] + LUMINANCE) * (variances + CONTRAST))
    return value.flatten(1).mean(1).double()


def _gaussian_window(sigma: float) -> Tensor:
    """(K, K) float32, its sum 1, as wide as 3.5 sigma on each side."""
    import torch

    side = int(3.5 * sigma + 0.5)
    row = torch.exp(-torch.pow(torch.arange(-side, side + 1, dtype=torch.float32) / sigma, 2) / 2)
    row = (row / row.sum()).unsqueeze(0)
    return row.t() @ row


def median(values: Tensor) -> Tensor:
    """Median over the last axis, the mean of the middle two if even; NaN if any value is: (..., S) -> (...)."""
    return values.quantile(0.5, dim=-1)
