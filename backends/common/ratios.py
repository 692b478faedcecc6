"""Run-time scales where a target takes constants only: a reference scale in the program, a ratio to it as input.

A reference scale that is a power of two leaves every rounding where it was: x / (r * 2^n) and (x / r) / 2^n are the same number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact


def reference_scales(scale: Tensor) -> Tensor:
    """(G, L) scales -> (L,): a power of two in the middle of each site's, at least the smallest normal fp16 number."""
    return torch.exp2(scale.log2().mean(0).round().clamp(min=-14))


def check_symmetric(artifact: Artifact, flag: str) -> None:
    """Raise BackendError for the first site with a zero_point: only scales are an input.

    Args:
        flag: that asked for run-time scales.
    """
    for index, site in enumerate(artifact.sites):
        if artifact.zero_point[:, index].any():
            raise BackendError(
                f"run-time scales need scheme 'symmetric', got a zero_point at site {site.name}; calibrate "
                f"with scheme symmetric, or export without {flag}"
            )


def ratio_table(artifact: Artifact, flag: str) -> Tensor:
    """(G, L) float32: what the input ``ranges`` gets in each step group.

    Args:
        flag: that asked for run-time scales, for the text of an error.
    Raises:
        BackendError: a zero_point is not 0, or a ratio is no fp16 number; the text names the site.
    """
    check_symmetric(artifact, flag)
    ratios = artifact.scale / reference_scales(artifact.scale)
    for index, site in enumerate(artifact.sites):
        if not torch.equal(ratios[:, index].to(torch.float16).to(torch.float32), ratios[:, index]):
            raise BackendError(
                f"the scales of {site.name} differ too much between step groups for run-time scales in fp16; "
                f"export without {flag}"
            )
    return ratios
