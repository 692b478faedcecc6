"""What ``analyze`` prints: layers by their share of the error, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import sqrt
from typing import Any

from rich.console import Console
from rich.table import Table

from dq_toolchain.toolchain.console.terminal import line, plain

SHOWN = 20
"""Layers; the rest is one row."""
SHARES = ("weights", "activations")
BITS = {"weights": "weight_bits", "activations": "activation_bits"}
MOST = {"weights": 8, "activations": 16}
"""Bits that a recipe can ask for."""
NARROW, WIDTH = 4, 8
"""What a budget gives layers; the second is also the usual width of activations."""


def show_analysis(console: Console, found: Mapping[str, Any]) -> None:
    """Print ``Analysis.to_json``."""
    layers, runs = found["layers"], found["runs"]
    certain = f"{runs} held-out samples, each share to about {sqrt(2 / runs):.0%} of it"
    console.print(line(f"shares of the error of the finished sample ({certain})"), soft_wrap=True)
    table = Table("layer", "bits", "weights", "activations", "multiplications")
    for row in layers[:SHOWN]:
        weights = "" if row["weight_bits"] is None else f"W{row['weight_bits']}"
        table.add_row(plain(row["layer"]), f"{weights}A{row['activation_bits']}", *_figures([row]))
    if len(layers) > SHOWN:
        table.add_row(f"{len(layers) - SHOWN} others (--json lists them)", "", *_figures(layers[SHOWN:]))
    console.print(table)
    for name in SHARES:
        together = found[f"{name}_together"]
        if found[name] > 0:
            console.print(line(f"{name}: {found[name]:.0%} of the error; {_relation(together)}"))
    console.print(line(plain(_proposal(found))), soft_wrap=True)


def _figures(rows: list[Mapping[str, Any]]) -> list[str]:
    return [f"{sum(row[key] for row in rows):.1%}" for key in (*SHARES, "multiplications")]


def _relation(together: float) -> str:
    return f"all layers together have {together:.2g} times the power that independent ones would have"


def _proposal(found: Mapping[str, Any]) -> str:
    """What is worth trying, by what was measured."""
    gain = found["in_float"]
    if gain is None:
        return f"no layer is worth float; {_remedy(found)}"
    rows = [row for row in found["layers"] if row["layer"] in gain["layers"]]
    cost, share = (sum(row[key] for row in rows for key in keys) for keys in (["multiplications"], SHARES))
    said = (
        f"{', '.join(gain['layers'])}: {share:.0%} of the error, {cost:.1%} of the multiplications; in float they gain "
        f"{gain['mean']:.2f} dB ({gain['low']:.2f} to {gain['high']:.2f}, {gain['seeds']} held-out samples, no new fit)"
    )
    if gain["low"] > 0:
        return f"{said}: calibrate with {' '.join(f'--keep-float {name}' for name in gain['layers'])}"
    return f"{said}, which is not certain; {_remedy(found)}"


def _remedy(found: Mapping[str, Any]) -> str:
    """The settings that give what makes most of the error more bits, by the bits that it has."""
    name = max(SHARES, key=lambda name: found[name])
    bits = _bits(found["layers"], name)
    what = "weights" if name == "weights" else "rounded activations"
    if bits >= MOST[name]:
        return (
            f"most of the error is of {what}, which have {bits} bits: no setting gives them more; what is left is float for the "
            "first layers of the table (keep_float), which costs their multiplications"
        )
    if name == "weights":
        some = "give some of them more bits (--budget), all" if bits <= NARROW else "give all of them more bits"
        return f"most of the error is of weights: {some} (--weight-bits 8), or fit longer (--effort best)"
    wider = "--activation-bits 16, where the target takes it"
    if bits < WIDTH:
        return f"most of the error is of rounded activations, which have {bits} bits: --activation-bits {WIDTH}, or {wider}"
    if found["scheme"] == "symmetric":
        return (
            "most of the error is of rounded activations: --scheme affine where the target takes it (dq-toolchain targets), or "
            "--activation-bits 16"
        )
    return f"most of the error is of rounded activations: {wider}"


def _bits(layers: list[Mapping[str, Any]], name: str) -> int:
    """The width that makes most of these errors."""
    key, shares = BITS[name], Counter[int]()
    for row in layers:
        if row[key] is not None:
            shares[row[key]] += row[name]
    return max(shares, key=shares.__getitem__)
