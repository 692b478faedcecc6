"""A modulation with bits of its own: every other layer as `calibrate` makes it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch

import dq_toolchain as dq
from benchmarks import few_steps
from tests.tiny_pipelines import flux, save_transformer

FEW: dict[str, dict[str, Any]] = {
    "calibrate": {"samples": 3, "batch": 2, "warmup": 2, "settling": 0, "group_iterations": 0},
    "blocks": {"rows": 6},
    "reference": {"seeds": 2},
    "run": {"device": "cpu"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save_transformer(flux(), tmp_path_factory.mktemp("model"))


def _calibrated(model: Path, out: Path, bits: int | None) -> dq.Calibration:
    recipe = {**FEW, "conditioning": {"file": model / "conditioning.safetensors"}}
    with few_steps.wider_modulation(bits):
        return dq.calibrate(
            model, out=out, steps=2, guidance=1.0, effort="quick", recipe=recipe, weight_bits=4, step_groups=2
        )


def test_the_modulation_alone_has_bits_of_its_own(model: Path, tmp_path: Path) -> None:
    plain, same, wider = (_calibrated(model, tmp_path / str(bits), bits) for bits in (None, 4, 8))
    assert torch.equal(same.reference.simulation_latents, plain.reference.simulation_latents)
    bits = {site.layer: site.weight_bits for site in wider.artifact.sites if site.weight_bits}
    before = {site.layer: site.weight_bits for site in plain.artifact.sites if site.weight_bits}
    changed = {name for name in bits if bits[name] != before[name]}
    assert changed == {name for name in bits if fnmatchcase(name, few_steps.MODULATION)}
    assert {bits[name] for name in changed} == {8}
    assert {name for name in before if before[name] == 8} == {"x_embedder", "proj_out"}
    assert set(before.values()) == {4, 8}
