"""Smallest and largest value of what every product gives, per step group: what a runtime quantizes outputs with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dq_toolchain.toolchain.quant.site import Site, results_of

LOW, HIGH = "output_low", "output_high"
"""Tensors of an artifact's activations.safetensors."""


@dataclass(frozen=True)
class OutputRanges:
    """``low`` and ``high``: (G, P) float32 each, tensors or arrays; G step groups, P products.

    Attributes:
        names: of the products' results, as ``names_of`` gives them.
    """

    names: tuple[str, ...]
    low: Any
    high: Any

    @classmethod
    def of(cls, names: Sequence[str] | None, tensors: Mapping[str, Any]) -> OutputRanges | None:
        """What an artifact's files hold. None where they hold none. Raises KeyError: only a part of it is there."""
        if names is None and not {LOW, HIGH} & set(tensors):
            return None
        if names is None:
            raise KeyError("outputs")
        return cls(tuple(names), tensors[LOW], tensors[HIGH])

    def fault(self, sites: Sequence[Site], groups: int) -> str | None:
        """What is wrong with values read from a file, None if nothing is."""
        wanted = names_of(sites)
        if self.names != wanted:
            return f"outputs are not those of the {len(wanted)} products of its sites, in their order"
        low, high = np.asarray(self.low), np.asarray(self.high)
        for name, array in ((LOW, low), (HIGH, high)):
            if array.shape != (groups, len(wanted)) or array.dtype != np.float32:
                return f"{name} is {array.dtype} of shape {array.shape}, expected float32 of {(groups, len(wanted))}"
        bad = ~(np.isfinite(low) & np.isfinite(high) & (low <= high))
        if bad.any():
            group, column = (int(place[0]) for place in bad.nonzero())
            return (
                f"the range of {wanted[column]} in step group {group} is {low[group, column]} to {high[group, column]}"
            )
        return None

    def rows(self) -> list[dict[str, Any]]:
        """One plain row per product; ``range`` is a list over the step groups."""
        pairs = np.stack([np.asarray(self.low), np.asarray(self.high)], axis=-1)
        return [{"output": name, "range": pairs[:, i].tolist()} for i, name in enumerate(self.names)]


def names_of(sites: Sequence[Site]) -> tuple[str, ...]:
    """Names of the results of all products that have integer operands, in the order of an artifact's columns."""
    return tuple(site.name for site in results_of(sites))
