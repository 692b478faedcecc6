"""The table of sites as plain data: what `inspect` prints, the bundle carries and the page shows."""

from __future__ import annotations

from typing import Any

from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.qparams import activation_type, qparams_to_range


def site_rows(artifact: Artifact) -> list[dict[str, Any]]:
    """One plain row per site; ``range``, ``scale`` and ``zero_point`` are lists over the step groups."""
    rows = []
    for index, site in enumerate(artifact.sites):
        low, high = qparams_to_range(
            artifact.scale[:, index], artifact.zero_point[:, index], activation_type(site.bits)
        )
        rows.append(
            {
                "site": site.name,
                "kind": site.kind,
                "activation_bits": site.bits,
                "scheme": site.scheme,
                "weight_bits": site.weight_bits,
                "range": [[float(a), float(b)] for a, b in zip(low, high, strict=True)],
                "scale": artifact.scale[:, index].tolist(),
                "zero_point": artifact.zero_point[:, index].tolist(),
            }
        )
    return rows
