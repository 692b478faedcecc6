"""Gradient-aligned calibration: rows weighted by how well their gradients agree with those of other times.

ICLR 2026; no code published. What is implemented, and where it is our reading, stands in ``calibrate/blocks/row_weights.py``. It
stands on AdaRound with the temporal block reconstructed by itself, as TFMQ-DM does.
"""

from __future__ import annotations

from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.methods.tfmq import TFMQ

METHODS = (Method("gac", "Gradient-aligned calibration, ICLR 2026", TFMQ, blocks={"aligned": True}),)
