"""Names the sites where a computation goes wrong or is not what it seems, so that a text can say more than "NaN"."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.ranges.observer import Histogram
from dq_toolchain.toolchain.quant.qparams import FP16_LARGEST, SMALLEST_SCALE, SMALLEST_WEIGHT_SCALE
from dq_toolchain.toolchain.quant.site import Site

NAMED = 3
"""Sites that a line about many names."""


def constant_sites(sites: Sequence[Site], histograms: Sequence[Sequence[Histogram]]) -> dict[str, list[list[float]]]:
    """Sites that only ever see one value in a step group: [step group, value] of each, by name."""
    found: dict[str, list[list[float]]] = {}
    for step_group, row in enumerate(histograms):
        for site, histogram in zip(sites, row, strict=True):
            if histogram.is_constant:
                found.setdefault(site.name, []).append([step_group, histogram.low])
    return found


def say_constant(found: Mapping[str, Sequence[Sequence[float]]], step_groups: int) -> str:
    """One line about constant sites; the cause may be a fault of the weights."""
    parts = []
    for name, rows in found.items():
        values = dict.fromkeys(f"{value:g}" for _, value in rows)
        where = "" if len(rows) == step_groups else f" in step group {', '.join(f'{group:g}' for group, _ in rows)}"
        parts.append(f"{name} ({' or '.join(values)}{where})")
    return (
        f"activations that never change, quantized to that value: {', '.join(parts)}; if that is not meant, check the model's "
        "weights and the conditioning"
    )


def beyond_fp16(sites: Sequence[Site], histograms: Sequence[Sequence[Histogram]]) -> dict[str, float]:
    """Largest absolute values that fp16 does not hold, by site or, of what a layer gives, by layer."""
    found: dict[str, float] = {}
    for row in histograms:
        for site, histogram in zip(sites, row, strict=True):
            for name, largest in ((site.name, max(-histogram.low, histogram.high)), (site.layer, histogram.output)):
                if largest > FP16_LARGEST:
                    found[name] = max(largest, found.get(name, 0.0))
    return found


def say_beyond_fp16(found: Mapping[str, float]) -> str:
    """One line about values beyond fp16 and the flag that they take."""
    parts = [f"{name} ({largest:.3g})" for name, largest in found.items()]
    values = f"values beyond fp16 ({FP16_LARGEST:.0f}): {', '.join(parts)}"
    return f"{values}; export with --precision fp32 for a target that has this flag"


def at_smallest_scale(sites: Sequence[Site], scale: torch.Tensor, constant: Collection[str] = ()) -> list[str]:
    """Sites whose scale (G, L) was raised to the smallest that fp16 holds exactly: their integers are coarser than chosen.

    Args:
        constant: sites whose one value any scale represents.
    """
    raised = (scale <= SMALLEST_SCALE).any(0).tolist()
    return [site.name for site, is_raised in zip(sites, raised, strict=True) if is_raised and site.name not in constant]


def say_at_smallest_scale(sites: Sequence[Site], raised: Collection[str]) -> list[str]:
    """A line about sites of 8 bits and fewer, and one about those of 16: these still have more integers than 8 bits give
    where their values reach ``SMALLEST_SCALE`` * 128."""
    wide = [site.name for site in sites if site.name in raised and site.bits > 8]
    narrow = [name for name in raised if name not in wide]
    lines = []
    if narrow:
        lines.append(f"activations too small for an fp16 scale, quantized coarser than chosen: {', '.join(narrow)}")
    if wide:
        more = f" and {len(wide) - NAMED} more (record.at_smallest_scale)" if len(wide) > NAMED else ""
        lines.append(
            f"activations of 16 bits within {SMALLEST_SCALE * 2**15:.3g} of zero have steps of {SMALLEST_SCALE:.1e}, the smallest "
            f"scale that fp16 holds in full, and so fewer bits: {', '.join(wide[:NAMED])}{more}"
        )
    return lines


def weights_at_smallest_scale(network: QuantizedNetwork) -> list[str]:
    """Layers with the number of channels whose weights are too small for any scale: their integers are coarser than chosen."""
    found = []
    for name, layer in network.layers.items():
        scale = layer.weight_quantizer.searched
        count = int((scale <= SMALLEST_WEIGHT_SCALE).sum())
        if count:
            found.append(f"{name} ({count} of {len(scale)} channels)")
    return found
