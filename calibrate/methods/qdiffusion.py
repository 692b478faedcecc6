"""Q-Diffusion: a calibration set of uniformly spaced steps, AdaRound block after block, split shortcuts.

All methods here calibrate on every step of the sampler that is asked for, which is Q-Diffusion's uniform set.
"""

from __future__ import annotations

from dq_toolchain.calibrate.fitting.blocks import BLOCKS
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.methods.ranges import MSE

QDIFFUSION = Method(
    "qdiffusion", "Li et al. 2023, arXiv 2302.04304", MSE, settings={"quantize": {"split": True}}, fit=(BLOCKS,)
)

METHODS = (QDIFFUSION,)
