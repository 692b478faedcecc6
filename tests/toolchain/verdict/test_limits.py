"""The limits that judge come from the reference, and correct devices lie within them."""

from __future__ import annotations

import copy

import pytest

from dq_toolchain.toolchain.checks import overall
from dq_toolchain.toolchain.formats.report import first_seeds
from dq_toolchain.toolchain.verdict.conformance import conformance
from dq_toolchain.toolchain.verdict.fidelity import fidelity
from dq_toolchain.toolchain.verdict.limits import limits_of_judge
from tests.toolchain.devices import CORRECT, STEPS, Case, case, half_between_layers, run


@pytest.fixture(scope="module")
def made() -> Case:
    return case(seed=5)


def judged(made: Case, device: str, seeds: int) -> str:
    """The outcome for one of CORRECT, or with fp16 between the layers."""
    half = device not in CORRECT
    latents, outputs = run(made.artifact, made.reference, change=half_between_layers) if half else CORRECT[device](made)
    few = first_seeds(made.reference, seeds)
    limits, _ = limits_of_judge(made.limits_without_twin if half else made.limits, few, made.reference)
    return overall(
        (
            *fidelity(latents[:, :seeds], few, limits["fidelity"]),
            *conformance(latents[:, :seeds], outputs[:, :seeds], few, made.artifact.step_groups, limits["conformance"]),
        )
    )


@pytest.mark.parametrize("device", [*CORRECT, "fp16 between the layers"])
def test_a_correct_device_passes_with_all_seeds_and_is_not_decided_with_few(made: Case, device: str) -> None:
    assert [judged(made, device, seeds) for seeds in (1, 2, 4, 16)] == ["not decided"] * 3 + ["pass"]


@pytest.mark.slow
def test_no_correct_device_of_36_networks_is_failed_or_left_open() -> None:
    outcomes = {
        (seed, guidance, bits, device, seeds): judged(made, device, seeds)
        for seed in range(12) for guidance, bits in ((1.0, 8), (1.0, 4), (3.0, 8)) for made in [case(seed, guidance, bits)]
        for device in (*CORRECT, "fp16 between the layers") for seeds in (10, 16)
    }  # fmt: skip
    assert {key: outcome for key, outcome in outcomes.items() if outcome != "pass"} == {}


def test_what_is_stored_is_compared_and_not_believed(made: Case) -> None:
    limits, differing = limits_of_judge(made.limits, made.reference, made.reference)
    assert (limits, differing) == (made.limits, ())
    loose = copy.deepcopy(made.limits)
    loose["fidelity"]["psnr_loss"] = 1e30
    loose["conformance"]["bias"] = -1
    loose["conformance"]["exact"]["difference"] = 1e30
    limits, differing = limits_of_judge(loose, made.reference, made.reference)
    assert limits == made.limits
    assert differing == ("fidelity.psnr_loss", "conformance.bias")


@pytest.mark.parametrize(
    "share", [[1.5] * STEPS, [-0.1] * STEPS, [float("nan")] * STEPS, [True] * STEPS, [0.5], 0.5, None]
)
def test_a_share_that_is_none_is_refused(made: Case, share: object) -> None:
    stored = {
        **made.limits,
        "conformance": {**made.limits["conformance"], "exact": {"difference": 0.02, "share": share}},
    }
    with pytest.raises((ValueError, TypeError)):
        limits_of_judge(stored, made.reference, made.reference)
