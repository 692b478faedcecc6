"""Every form of the asset holds the same integers, computes what the simulation computes, and passes the smoke test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.verdict.judge import validate
from tests import tiny, tiny_artifacts
from tests.backends.coreai.conftest import converted, lower
from tests.backends.coreai.runtime.test_conformance import compared

FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "run-time scales": ({"step_groups_as": "input"}, {}),
    "run-time scales, 4 bits": ({"step_groups_as": "input"}, {"weight_bits": 4}),
    "int8 attention": ({}, {"attention": True}),
    "int8 attention, affine": ({}, {"attention": True, "scheme": "affine"}),
    "tables": ({"lut": True}, {"weight_bits": 4}),
    "Neural Engine layout": ({"layout": "neural-engine"}, {}),
    "cross-attention": ({}, {"unet": tiny.tiny_condition_unet}),
    "cross-attention, Neural Engine layout, tables": (
        {"layout": "neural-engine", "lut": True},
        {"unet": tiny.tiny_condition_unet, "weight_bits": 4},
    ),
    "small weights": ({}, {"unet": lambda: tiny.with_small_weights(tiny.tiny_unet())}),
    "integer outputs": ({"quantize_outputs": True}, {}),
    "integer outputs, int8 attention": ({"quantize_outputs": True}, {"attention": True}),
}
WITHOUT_OUTPUTS = [name for name, (settings, _) in FORMS.items() if "quantize_outputs" not in settings]


def _options(form: str) -> tuple[dict[str, Any], dict[str, Any]]:
    settings, options = FORMS[form]
    return settings, options | ({"unet": options["unet"]()} if "unet" in options else {})


@pytest.mark.slow
@pytest.mark.parametrize("form", WITHOUT_OUTPUTS)
def test_every_form_equals_the_simulation(form: str, tmp_path: Path) -> None:
    settings, options = _options(form)
    found = compared(converted(tmp_path, {"precision": "fp32", **settings}, **options))
    assert max(one.output_error for one in found) <= 2e-6
    assert all(one.largest <= 1 for one in found)
    assert sum(one.different for one in found) <= 1e-5 * sum(one.places for one in found) + 1


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_exported_and_executed(form: str, tmp_path: Path) -> None:
    """In fp16, by the steps of the command: the audit, and one execution per step group near the simulation."""
    settings, options = _options(form)
    artifact, unet = tiny_artifacts.lively_artifact(**options)
    made, _ = lower(tmp_path, replace(artifact, guidance=2.0), unet, **settings)
    assert made.form == ("runtime-scales" if "step_groups_as" in settings else "functions")


def test_a_bundle_runs_here_and_passes(bundle: tuple[Bundle, Path], tmp_path: Path) -> None:
    """The whole sampler through Apple's interpreter."""
    verdict = validate(run_bundle(backends.load("coreai"), *bundle, tmp_path, seeds=1))
    assert not verdict.failed, verdict.to_json()
