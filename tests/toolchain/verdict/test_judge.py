"""A report of a correct device passes as a whole; faults, edits and copies are told apart."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from dq_toolchain.toolchain.checks import MINIMUM_SEEDS
from dq_toolchain.toolchain.formats.report import first_seeds, write_report
from dq_toolchain.toolchain.render.page import render
from dq_toolchain.toolchain.render.show import show_verdict
from dq_toolchain.toolchain.verdict.judge import validate
from dq_toolchain.toolchain.verdict.result import WORST
from tests.toolchain.devices import Case, header, run, skipping, write_run, wrong_scale
from tests.toolchain.reports import edit, said_by


def test_a_correct_device_passes_both_verdicts(good: Path) -> None:
    verdict = validate(good / "report" / "report.json")
    assert verdict.passed
    assert (verdict.fidelity_passed, verdict.conformance_passed, verdict.first_step) == (True, True, None)
    assert verdict.to_json() == json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert validate(good / "report").passed  # the folder will do


def test_a_sampler_fault_fails_both_and_names_the_step(made: Case, bundle: Path) -> None:
    write_run(bundle, made, run(made.artifact, made.reference, table=skipping(made.artifact.table, 3)))
    verdict = validate(bundle / "report")
    assert not verdict.fidelity_passed
    assert verdict.first_step_of(verdict.fidelity) == 3
    assert {c.name: c.step for c in verdict.conformance if not c.passed} == {"conformance.rollout": 3}


def test_small_damage_fails_conformance_while_the_picture_is_right(made: Case, bundle: Path) -> None:
    column = made.artifact.site_index("mid_block.attentions.0.to_k")
    write_run(bundle, made, run(wrong_scale(made.artifact, column, 2.0), made.reference))
    verdict = validate(bundle / "report")
    assert verdict.fidelity_passed
    assert not verdict.conformance_passed
    assert verdict.first_step == 0


def test_nan_is_a_verdict_not_a_crash(made: Case, bundle: Path) -> None:
    latents, outputs = (t.clone() for t in run(made.artifact, made.reference))
    latents[5:, 1] = torch.nan
    outputs[6:, 1] = torch.inf
    write_run(bundle, made, (latents, outputs))
    verdict = validate(bundle / "report")
    assert {c.name: c.step for c in (*verdict.fidelity, *verdict.conformance) if not c.passed} == {
        "fidelity.finite": 4,
        "conformance.finite": 4,
    }
    assert verdict.first_step == 4
    json.dumps(verdict.to_json(), allow_nan=False)
    assert "NaN" in render(verdict)
    show_verdict(Console(quiet=True), verdict)


CLAIMS: dict[str, tuple[str, int | None, Callable[[dict[str, Any]], object]]] = {
    "smaller error": ("claims.error_fp32", 2, lambda d: d["per_step"][2].update(error_fp32=1e-6)),
    "error left out": ("claims.error_simulation", 1, lambda d: d["per_step"][1].update(error_simulation=None)),
    "better PSNR": ("claims.psnr", None, lambda d: d["final"]["psnr"].__setitem__(4, 61.5)),
    "better SSIM": ("claims.ssim", None, lambda d: d["final"]["ssim"].__setitem__(0, 0.5)),
}


@pytest.mark.parametrize("edited", CLAIMS)
def test_a_claim_that_does_not_follow_from_the_latents_fails_by_name(bundle: Path, edited: str) -> None:
    name, step, change = CLAIMS[edited]
    edit(bundle / "report" / "report.json", change)
    verdict = validate(bundle / "report")
    assert [(c.name, c.step) for c in verdict.claims if not c.passed] == [(name, step)]
    assert not verdict.passed
    assert verdict.fidelity_passed
    assert verdict.conformance_passed


def test_ssim_may_be_left_out(bundle: Path) -> None:
    edit(bundle / "report" / "report.json", lambda d: d["final"].pop("ssim"))
    assert validate(bundle / "report").passed


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_device_may_run_the_first_few_seeds(made: Case, bundle: Path, seeds: int) -> None:
    few = first_seeds(made.reference, seeds)
    write_report(bundle / "report", header(bundle), *run(made.artifact, few, mode="fake_quantize"), few)
    verdict = validate(bundle / "report")
    assert verdict.outcome == "not decided", verdict.to_json()
    assert verdict.more_seeds == MINIMUM_SEEDS - seeds
    assert f"--seeds {MINIMUM_SEEDS}" in str(verdict.remedy())
    skips = run(made.artifact, few, table=skipping(made.artifact.table, 3))
    write_report(bundle / "report", header(bundle), *skips, few)
    assert validate(bundle / "report").first_step == 3
    assert validate(bundle / "report").failed


def test_a_copy_of_the_simulation_is_named(made: Case, bundle: Path, good: Path) -> None:
    write_run(bundle, made, (made.reference.simulation_latents, made.reference.simulation_outputs))
    verdict = validate(bundle / "report")
    for text in (said_by(verdict), render(verdict), *verdict.to_json()["notes"]):
        assert "bit-identical to the simulation in every number" in text
    assert not validate(good / "report").notes


def test_the_worst_seeds_are_shown_by_name(made: Case, bundle: Path) -> None:
    latents, outputs = (t.clone() for t in run(made.artifact, made.reference))
    latents[-1, 11] = -latents[-1, 11]
    write_run(bundle, made, (latents, outputs))
    verdict = validate(bundle / "report")
    assert verdict.worst[0].seed == 11
    assert len(verdict.worst) == WORST
    assert not verdict.passed
    shown = f"seed 11 {verdict.worst[0].psnr:.1f} dB (simulation {verdict.worst[0].simulation_psnr:.1f})"
    assert shown in said_by(verdict)
    assert shown in render(verdict)
    assert verdict.to_json()["worst_seeds"][0]["seed"] == 11


def test_the_console_names_the_failing_step(made: Case, bundle: Path) -> None:
    write_run(bundle, made, run(made.artifact, made.reference, table=skipping(made.artifact.table, 3)))
    stream = io.StringIO()
    show_verdict(Console(width=200, file=stream), validate(bundle / "report"))
    text = stream.getvalue()
    assert "FAIL conformance" in text
    assert "first step outside its limits: 3" in text
    assert "verdict: FAIL" in text
