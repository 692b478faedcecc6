"""What ``analyze`` prints: the layers, the rest in one row, and one thing to do."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from dq_toolchain.toolchain.render.analysis import SHOWN, show_analysis


def _printed(found: dict[str, Any]) -> str:
    stream = io.StringIO()
    show_analysis(Console(width=250, file=stream), found)
    return stream.getvalue()


def _row(
    name: str, weights: float, activations: float, multiplications: float = 0.01, *, bits: tuple[int, int] = (8, 8)
) -> dict[str, Any]:
    return {
        "layer": name, "weight_bits": bits[0], "activation_bits": bits[1], "weights": weights, "activations": activations,
        "multiplications": multiplications,
    }  # fmt: skip


def _found(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "runs": 32, "weights": sum(r["weights"] for r in rows), "activations": sum(r["activations"] for r in rows),
        "weights_together": 0.4, "activations_together": 1.0, "scheme": "symmetric", "layers": rows, "in_float": None, **more,
    }  # fmt: skip


EDGE = [_row("conv_out", 0.1, 0.3, 0.002), _row("conv_in", 0.2, 0.4)]


def test_layers_are_listed_and_the_rest_is_one_row() -> None:
    rows = [_row(f"layer_{i}", 0.01, 0.02) for i in range(SHOWN + 3)]
    said = _printed(_found(rows))
    assert "layer_19 " in said
    assert "layer_20 " not in said
    others = next(line for line in said.splitlines() if "3 others" in line)
    assert [figure in others for figure in ("3.0%", "6.0%")] == [True, True]
    assert "each share to about 25% of it" in said
    assert "weights: 23% of the error; all layers together have 0.4 times the power" in said


def _gain(low: float) -> dict[str, Any]:
    return {"layers": ("conv_out",), "mean": 0.5, "low": low, "high": 1.5, "seeds": 16}


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize(
    ("bits", "share", "settings"),
    [
        ((2, 8), 0.8, {"--budget", "--weight-bits 8", "--effort best"}),
        ((4, 16), 0.8, {"--budget", "--weight-bits 8", "--effort best"}),
        ((6, 8), 0.8, {"--weight-bits 8", "--effort best"}),
        ((8, 8), 0.8, set()),
        ((8, 16), 0.8, set()),
        ((4, 4), 0.2, {"--activation-bits 8", "--activation-bits 16"}),
        ((8, 8), 0.2, {"--activation-bits 16"}),
        ((8, 16), 0.2, set()),
        ((4, 16), 0.2, set()),
    ],
)
def test_only_settings_that_give_more_bits_are_named(
    bits: tuple[int, int], share: float, settings: set[str], scheme: str
) -> None:
    if bits[1] == 8 and share < 0.5 and scheme == "symmetric":
        settings = settings | {"--scheme affine"}
    rows = [_row("conv_in", 0.1 * share, 0.1 * (1 - share)), _row("middle", 0.9 * share, 0.9 * (1 - share), bits=bits)]
    last = _printed(_found(rows, scheme=scheme)).splitlines()[-1]
    assert set(re.findall(r"--[a-z-]+(?: (?:\d+|best|affine))?", last)) == settings
    assert ("no setting gives them more" in last) == (not settings)


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        (
            EDGE,
            {"in_float": _gain(0.1)},
            "conv_out: 40% of the error, 0.2% of the multiplications; in float they gain 0.50 dB (0.10 to",
        ),
        (EDGE, {"in_float": _gain(0.1)}, "held-out samples, no new fit): calibrate with --keep-float conv_out"),
        (EDGE, {"in_float": _gain(-0.1)}, "which is not certain; most of the error is of rounded activations"),
        (
            [_row("conv_in", 0.8, 0.2, bits=(4, 8))],
            {},
            "no layer is worth float; most of the error is of weights: give some of them more bits",
        ),
        ([_row("conv_in", 0.2, 0.8)], {}, "--scheme affine where the target takes it"),
        ([_row("conv_in", 0.2, 0.8)], {"scheme": "affine"}, "activations: --activation-bits 16, where"),
    ],
)
def test_one_thing_to_do_is_named(rows: list[dict[str, Any]], more: dict[str, Any], said: str) -> None:
    last = _printed(_found(rows, **more)).splitlines()[-1]
    assert said in last
    assert ("--keep-float" in last) == (more.get("in_float", {}).get("low", -1) > 0)
