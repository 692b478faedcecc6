"""AccuQuant: the error that accumulates over several denoising steps, per step group. The default; see docs/METHOD.md."""

from __future__ import annotations

from dq_toolchain.calibrate.methods.base import Method

METHODS = (Method("accuquant", "AccuQuant (NeurIPS 2025); our reconstruction", fit="accuquant"),)
