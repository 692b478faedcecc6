"""Do the figures of a report follow from its latents? What does not is a failed check of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dq_toolchain.toolchain.checks import Check

CLAIM_TOLERANCE = 1e-3
"""Relative; runtimes sum their figures in float32 and in another order (dB are absolute, hundredths)."""
CLAIM_TOLERANCE_DB = 0.02

CLAIMS = {
    "claims.error_fp32": "error against FP32", "claims.error_simulation": "error against the simulation",
    "claims.psnr": "PSNR", "claims.ssim": "SSIM",
}  # fmt: skip


def check_claims(data: Mapping[str, Any], computed: Mapping[str, Any]) -> tuple[Check, ...]:
    """One check claims.NAME per kind of figure: what the report says against what its latents give."""
    found = []
    for name in ("error_fp32", "error_simulation"):
        pairs = [(row[name], again[name]) for row, again in zip(data["per_step"], computed["per_step"], strict=True)]
        found.append(_claim(f"claims.{name}", pairs, CLAIM_TOLERANCE, relative=True, per_step=True))
    for name, tolerance in (("psnr", CLAIM_TOLERANCE_DB), ("ssim", CLAIM_TOLERANCE)):
        if name in data["final"]:
            pairs = list(zip(data["final"][name], computed["final"][name], strict=True))
            found.append(_claim(f"claims.{name}", pairs, tolerance, relative=False, per_step=False))
    return tuple(found)


def _claim(
    name: str, pairs: list[tuple[float | None, float | None]], tolerance: float, *, relative: bool, per_step: bool
) -> Check:
    place = "step" if per_step else "seed"
    for index, (claimed, computed) in enumerate(pairs):
        if claimed is None and computed is None:
            continue
        allowed = tolerance * (abs(computed or 0.0) + 1e-6 if relative else 1.0)
        if claimed is None or computed is None or not abs(claimed - computed) <= allowed:
            return Check(
                name,
                False,
                index if per_step else None,
                f"{place} {index}: the report claims {_text(claimed)}, its latents give {_text(computed)}",
            )
    return Check(name, True, None, f"{CLAIMS[name]} of {len(pairs)} {place}s as its latents give it")


def _text(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"
