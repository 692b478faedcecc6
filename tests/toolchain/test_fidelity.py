"""Fidelity looks at the pictures only: small losses pass, visible ones fail at the step where they begin."""

from __future__ import annotations

import json

import pytest
import torch

from dq_toolchain.toolchain.fidelity import fidelity
from dq_toolchain.toolchain.limits import PSNR_FLOOR, limits_for
from tests.toolchain.devices import STEPS, Case, case


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


def failed(made: Case, latents: torch.Tensor) -> dict[str, int | None]:
    checks = fidelity(latents, made.reference, made.limits["fidelity"])
    return {check.name: check.step for check in checks if not check.passed}


def worse(made: Case, factor: float, first: int) -> torch.Tensor:
    """The simulation's latents with their error against FP32 enlarged from one step on."""
    latents, fp32 = made.reference.simulation_latents.clone(), made.reference.fp32_latents
    latents[first + 1:] = fp32[first + 1:] + factor * (latents[first + 1:] - fp32[first + 1:])
    return latents


def test_fp32_itself_and_the_simulation_pass(made: Case) -> None:
    assert failed(made, made.reference.fp32_latents) == {}
    assert failed(made, made.reference.simulation_latents) == {}


def test_an_error_within_the_margin_passes_and_beyond_it_fails_at_its_step(made: Case) -> None:
    assert failed(made, worse(made, 1.1, 0)) == {}
    for step in (0, 3):
        assert failed(made, worse(made, 1.6, step))["fidelity.error"] == step


def test_a_loss_in_the_last_step_alone_shows_in_the_final_psnr(made: Case) -> None:
    assert failed(made, worse(made, 1.45, STEPS - 1)) == {"fidelity.psnr": STEPS - 1}


def test_a_bad_simulation_does_not_excuse_a_bad_picture(made: Case) -> None:
    noise = torch.randn(made.reference.fp32_latents.shape, generator=torch.Generator().manual_seed(0))
    noise[0] = 0
    bad = made.reference.fp32_latents + noise
    limits = limits_for(made.reference.__class__(**{**vars(made.reference), "simulation_latents": bad}))
    names = [check.name for check in fidelity(bad, made.reference, limits["fidelity"]) if not check.passed]
    assert names == ["fidelity.floor"]
    assert limits["fidelity"]["psnr_floor"] == PSNR_FLOOR


def test_limits_are_plain_json(made: Case) -> None:
    for limits in (made.limits, made.limits_without_twin):
        assert json.loads(json.dumps(limits, allow_nan=False)) == limits
    assert made.limits_without_twin["conformance"]["exact"] is None
    assert len(made.limits["conformance"]["exact"]["share"]) == STEPS
