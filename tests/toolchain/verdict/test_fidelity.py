"""Fidelity looks at the pictures only: small losses pass, visible ones fail at the step where they begin."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from dq_toolchain.toolchain.checks import MINIMUM_SEEDS, more_seeds_of, overall
from dq_toolchain.toolchain.formats.report import first_seeds
from dq_toolchain.toolchain.verdict.fidelity import _share, fidelity
from dq_toolchain.toolchain.verdict.limits import PSNR_FLOOR, limits_for
from tests.toolchain.devices import STEPS, Case, case


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


def failed(made: Case, latents: torch.Tensor) -> dict[str, int | None]:
    checks = fidelity(latents, made.reference, made.limits["fidelity"])
    return {check.name: check.step for check in checks if check.outcome == "fail"}


def worse(made: Case, factor: float, first: int) -> torch.Tensor:
    """The simulation's latents with their error against FP32 enlarged from one step on."""
    latents, fp32 = made.reference.simulation_latents.clone(), made.reference.fp32_latents
    latents[first + 1 :] = fp32[first + 1 :] + factor * (latents[first + 1 :] - fp32[first + 1 :])
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
    names = [check.name for check in fidelity(bad, made.reference, limits["fidelity"]) if check.outcome == "fail"]
    assert names == ["fidelity.floor"]
    assert limits["fidelity"]["psnr_floor"] == PSNR_FLOOR


def test_limits_are_plain_json(made: Case) -> None:
    for limits in (made.limits, made.limits_without_twin):
        assert json.loads(json.dumps(limits, allow_nan=False)) == limits
    assert made.limits_without_twin["conformance"]["exact"] is None
    assert len(made.limits["conformance"]["exact"]["share"]) == STEPS


def ruined(made: Case, seeds: list[int], error: float = 1.0) -> torch.Tensor:
    """The simulation's latents with noise on the last of some seeds: below 20 dB."""
    latents = made.reference.simulation_latents.clone()
    noise = torch.randn(latents[-1].shape, generator=torch.Generator().manual_seed(4))
    latents[-1, seeds] += error * noise[seeds]
    return latents


@pytest.mark.parametrize(
    ("seeds", "outcome"), [([], "pass"), ([3], "not decided"), ([3, 9], "fail"), (list(range(12)), "fail")]
)
def test_seeds_that_collapse_are_seen_one_by_one(made: Case, seeds: list[int], outcome: str) -> None:
    checks = fidelity(ruined(made, seeds), made.reference, made.limits["fidelity"])
    share = next(check for check in checks if check.name == "fidelity.share")
    assert share.outcome == outcome
    assert f"{len(seeds)} of 16 seeds below 20 dB" in share.detail
    assert "the simulation has 0 of 16" in share.detail
    assert all(f"seed {seed}: " in share.detail for seed in seeds[:3])
    assert overall(checks) != "pass" or not seeds


def test_what_the_simulation_loses_as_well_is_not_held_against_the_device(made: Case) -> None:
    seeds = [1, 5, 8]
    bad = ruined(made, seeds)
    reference = dataclasses.replace(made.reference, simulation_latents=bad)
    checks = fidelity(bad, reference, limits_for(reference)["fidelity"])
    assert {check.name: check.outcome for check in checks}["fidelity.share"] == "pass"


def test_more_bad_seeds_than_chance_explains_are_not_decided_then_fail(made: Case) -> None:
    """No collapse: the simulation is just above the floor, the device just below."""
    wanted = torch.full((16,), 21.0, dtype=torch.float64)
    outcomes = []
    for lost in (1, 6, 12):
        final = wanted.clone()
        final[:lost] = 19.5
        outcomes.append(_share(final, wanted, made.limits["fidelity"], STEPS - 1).outcome)
    assert outcomes == ["pass", "not decided", "fail"]


@pytest.mark.parametrize("seeds", range(1, MINIMUM_SEEDS))
def test_few_seeds_never_pass(made: Case, seeds: int) -> None:
    few = first_seeds(made.reference, seeds)
    checks = fidelity(few.simulation_latents, few, limits_for(few)["fidelity"])
    assert overall(checks) == "not decided"
    assert more_seeds_of(checks) == MINIMUM_SEEDS - seeds
