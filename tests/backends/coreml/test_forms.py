"""Every form of the package holds the same integers and computes what the simulation computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.backends.coreml.conftest import converted
from tests.backends.coreml.runtime.test_conformance import compared

FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "iOS 26": ({"ios": 26}, {}),
    "run-time scales": ({"step_groups_as": "input"}, {}),
    "run-time scales, iOS 17, 4 bits": ({"step_groups_as": "input", "ios": 17}, {"weight_bits": 4}),
    "int8 attention": ({}, {"attention": True}),
    "int8 attention, run-time scales": ({"step_groups_as": "input"}, {"attention": True}),
    "tables": ({"lut": True}, {"weight_bits": 4}),
    "tables, iOS 26, run-time scales": ({"lut": True, "ios": 26, "step_groups_as": "input"}, {"weight_bits": 4}),
    "Neural Engine layout": ({"layout": "neural-engine"}, {}),
    "cross-attention": ({}, {"unet": "condition"}),
    "cross-attention, Neural Engine layout": ({"layout": "neural-engine"}, {"unet": "condition"}),
    "cross-attention, tables, two chunks": ({"lut": True, "chunks": 2}, {"unet": "condition", "weight_bits": 4}),
    "cross-attention, Neural Engine layout, tables, two chunks": (
        {"layout": "neural-engine", "lut": True, "chunks": 2},
        {"unet": "condition", "weight_bits": 4},
    ),
    "everything at once": (
        {"layout": "neural-engine", "lut": True, "chunks": 2, "step_groups_as": "input", "ios": 26},
        {"unet": "condition", "weight_bits": 4},
    ),
    "two chunks": ({"chunks": 2}, {}),
    "two chunks, run-time scales": ({"chunks": 2, "step_groups_as": "input"}, {}),
}


ALWAYS = ("int8 attention, run-time scales", "cross-attention, Neural Engine layout, tables, two chunks")
"""These reach every option but the iOS; the others are combinations, and slow."""


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=() if form in ALWAYS else pytest.mark.slow) for form in FORMS]
)
def test_every_form_equals_the_simulation(form: str, tmp_path: Path) -> None:
    settings, options = FORMS[form]
    if "unet" in options:
        options = options | {"unet": tiny.tiny_condition_unet()}
    made = converted(tmp_path / "made", {"precision": "fp32", **settings}, **options)
    found = compared(made)
    assert max(one.output_error for one in found) <= 1e-6
    assert all(one.largest <= 1 for one in found)
    assert sum(one.different for one in found) <= 1e-5 * sum(one.places for one in found) + 1
