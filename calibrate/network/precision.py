"""What passes without gradient are computed in: float32, or on request in something shorter that a GPU has tensor cores for.

Only FP32 rollouts, ranges and the passes that validate a fit may be shortened. Gradients, the integer simulation and
held-out samples are always exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.sections import Precision

TENSOR_CORES = (8, 0)
"""Compute capability from which GPUs multiply TF32 and bfloat16."""


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Inside, convolutions and matrix products on ``device`` are computed in this precision; latents stay float32.

    ``tf32`` rounds their operands to 10 bits behind the point, ``bf16`` operands and results to 7. Sums are float32 in both.
    """
    if precision == "exact":
        yield
    elif precision == "bf16":
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):  # a recording would keep what is cached
            yield
    else:
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = True
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise RecipeError if the device cannot compute in this precision."""
    if precision == "tf32" and device.type == "cpu":
        raise RecipeError(
            "--precision: got tf32, a format of NVIDIA GPUs, but the calibration runs on the CPU; allowed here: exact, bf16"
        )
    if precision != "exact" and device.type == "cuda" and torch.cuda.get_device_capability(device) < TENSOR_CORES:
        raise RecipeError(
            f"--precision: got {precision}, which {torch.cuda.get_device_name(device)} cannot multiply "
            "(compute capability 8.0 and later can); take exact"
        )
