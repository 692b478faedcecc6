"""Ranges only, one set for all steps, weights rounded to nearest: what every fit has to beat."""

from __future__ import annotations

from dq_toolchain.calibrate.methods.base import Method

MSE = Method("mse", settings={"quantize": {"step_groups": 1}, "calibrate": {"rounding": "nearest", "ranges": "mse"}})
MINMAX = Method("minmax", base=MSE, settings={"calibrate": {"ranges": "minmax"}})
SPLIT = Method(
    "split-shortcut", "Q-Diffusion (Li et al. 2023, arXiv 2302.04304)", MSE, settings={"quantize": {"split": True}}
)

METHODS = (MINMAX, MSE, SPLIT)
