"""The limits of a bundle: how far a correct device may be from the FP32 model, from the simulation's own figures.

Stored in bundle.json at export, applied by ``fidelity`` and ``conformance``.
"""

from __future__ import annotations

from typing import Any

from dq_toolchain.toolchain.metrics import psnr, rollout_error
from dq_toolchain.toolchain.reference import Reference
from dq_toolchain.toolchain.report import median


def limits_for(reference: Reference) -> dict[str, Any]:
    """Limits as plain JSON values, for bundle.json."""
    errors = rollout_error(reference.simulation_latents, reference.fp32_latents)
    final = psnr(reference.simulation_latents[-1], reference.fp32_latents[-1])
    return {
        "fidelity": {"error": [2 * float(v) for v in median(errors)], "psnr": float(median(final)) - 1.0},
        "conformance": {"ratio": 1.1, "bias": 0.05, "difference": 1.6},
    }
