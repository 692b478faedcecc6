"""The table of sites as plain data: what `inspect` prints, the bundle carries and the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from dq_toolchain.toolchain.quant.qparams import activation_type, qparams_to_range
from dq_toolchain.toolchain.quant.site import Site


class HasSites(Protocol):
    """An artifact or a listing: ``scale`` (G, L) float32 and ``zero_point`` (G, L) int32 are tensors or arrays."""

    @property
    def sites(self) -> Sequence[Site]: ...
    @property
    def scale(self) -> Any: ...
    @property
    def zero_point(self) -> Any: ...


def site_rows(artifact: HasSites) -> list[dict[str, Any]]:
    """One plain row per site; ``range``, ``scale`` and ``zero_point`` are lists over the step groups."""
    rows = []
    for index, site in enumerate(artifact.sites):
        scale, zero_point = artifact.scale[:, index], artifact.zero_point[:, index]
        as_float32: tuple[Any, Any] = (np.asarray(scale, np.float32), np.asarray(zero_point, np.float32))
        low, high = qparams_to_range(*as_float32, activation_type(site.bits))
        rows.append(
            {
                "site": site.name,
                "kind": site.kind,
                "activation_bits": site.bits,
                "scheme": site.scheme,
                "weight_bits": site.weight_bits,
                "range": [[float(a), float(b)] for a, b in zip(low, high, strict=True)],
                "scale": scale.tolist(),
                "zero_point": zero_point.tolist(),
            }
        )
    return rows
