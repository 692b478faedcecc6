"""Which sites an engine runs in INT8, by the builder's own list of its layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

MULTIPLIES = re.compile("conv|correlation|gemm|matmul|mha|fusion", re.IGNORECASE)
"""In the kind or name of a layer that multiplies."""


class Judgement(NamedTuple):
    """Sites by how the builder runs them; ``unseen``: inside a block of which this TensorRT shows nothing."""

    int8: list[str]
    in_float: list[str]
    unseen: list[str]


def judge(layers: Iterable[Any], sites: Iterable[str]) -> Judgement:
    """Which sites run in INT8, by the builder's own list of layers.

    A layer says in "Metadata" which nodes of the graph it was made of; nodes bear the names of sites.
    """
    found = Judgement([], [], [])
    known = [layer for layer in layers if isinstance(layer, dict)]
    for site in sites:
        tag = f"[ONNX Layer: {site}]"
        mine = [layer for layer in known if tag in str(layer.get("Metadata", ""))]
        products = [
            layer for layer in mine if MULTIPLIES.search(f"{layer.get('LayerType', '')} {layer.get('Name', '')}")
        ]
        if any(_is_int8(layer) for layer in products):
            found.int8.append(site)
        elif any(layer.get("Inputs") for layer in products):
            found.in_float.append(site)
        else:
            found.unseen.append(site)
    return found


def _is_int8(layer: Mapping[str, Any]) -> bool:
    """Whether the layer multiplies int8: its first input is, and it is no fusion, which dequantizes inside."""
    if "fusion" in str(layer.get("LayerType", "")):
        return False
    inputs = layer.get("Inputs") or [{}]
    return "int8" in str(inputs[0].get("Format/Datatype", inputs[0].get("Datatype", ""))).lower()
