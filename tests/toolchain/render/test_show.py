"""A verdict on the console: every check that matters is a line, and the word of the outcome is there."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dq_toolchain.toolchain.checks import Check
from dq_toolchain.toolchain.render.show import mark, show_checks, show_comparison, time_per_step, worst_text
from dq_toolchain.toolchain.verdict.judge import validate
from dq_toolchain.toolchain.verdict.result import Verdict, WorstSeed
from tests.toolchain.reports import edit, said_by


@pytest.fixture(scope="module")
def verdict(good: Path) -> Verdict:
    return validate(good / "report")


def printed(show: Callable[[Console], None]) -> str:
    stream = io.StringIO()
    show(Console(width=250, file=stream))
    return stream.getvalue()


def test_a_good_verdict_names_device_steps_and_outcome(verdict: Verdict) -> None:
    said = said_by(verdict)
    lines = said.splitlines()
    assert lines[0].startswith("executorch on a <test> device, emulated 0, cpu: ")
    assert f"{verdict.reference.seeds} seeds, {verdict.reference.calls} steps, 2.0 ms per step" in lines[0]
    assert lines[-1] == "verdict: pass"
    rows = [line.split() for line in lines]
    for step in verdict.steps:
        assert any(row[:2] == [str(step.step), str(step.step_group)] for row in rows)
    for check in (*verdict.fidelity, *verdict.conformance):
        assert f"pass {check.name.split('.')[1]}: " in said
    assert all(worst_text(worst) in said for worst in verdict.worst)


def test_a_failed_check_is_shown_with_its_reason_and_its_step(verdict: Verdict) -> None:
    bad = Check("fidelity.planted", False, 3, "much too [large]")
    said = said_by(replace(verdict, fidelity=(*verdict.fidelity, bad)))
    assert "FAIL planted: much too [large]" in said
    assert "FAIL fidelity (device against FP32: is the picture right?), first step outside its limits: 3" in said
    assert said.splitlines()[-1].startswith("verdict: FAIL")


def test_claims_are_shown_where_they_fail_only(verdict: Verdict) -> None:
    good, bad = Check("claims.one", True, None, "holds"), Check("claims.two", False, None, "does not hold")
    said = said_by(replace(verdict, claims=(good, bad)))
    assert "FAIL two: does not hold" in said
    assert "holds\n" not in said.replace("does not hold", "")


def test_several_verdicts_are_a_row_each_and_fail_together(verdict: Verdict, bundle: Path) -> None:
    edit(bundle / "report" / "report.json", lambda data: data.update(device="another device"))
    other = validate(bundle / "report")
    said = printed(lambda console: show_comparison(console, [verdict, other]))
    assert "a <test> device" in said
    assert "another device" in said
    assert said.splitlines()[-1] == "verdict: pass"
    bad = replace(other, fidelity=(Check("fidelity.planted", False, None, "bad"),))
    assert printed(lambda console: show_comparison(console, [verdict, bad])).splitlines()[-1] == "verdict: FAIL"


def test_checks_are_a_line_each_without_markup() -> None:
    checks = [Check("bundle.files", True, None, "all there"), Check("bundle.program", False, None, "[red]lost[/]\x1b")]
    said = printed(lambda console: show_checks(console, checks))
    assert said.splitlines() == ["pass files: all there", "FAIL program: [red]lost[/]\\x1b"]


def test_words_where_there_is_no_number(verdict: Verdict) -> None:
    assert worst_text(WorstSeed(4, None, 20.0)) == "seed 4 not finite (simulation 20.0)"
    assert worst_text(WorstSeed(4, 12.34, 20.0)) == "seed 4 12.3 dB (simulation 20.0)"
    assert {mark(outcome).split("]")[1].split("[")[0] for outcome in ("pass", "fail", "not decided")} == {
        "pass",
        "FAIL",
        "not decided",
    }
    data = {**verdict.report.data, "step_ms": [None] * verdict.reference.calls}
    untimed = replace(verdict, report=replace(verdict.report, data=data))
    assert time_per_step(verdict) == "2.0 ms per step"
    assert time_per_step(untimed) == "time not measured"
    emulated = replace(verdict, report=replace(verdict.report, data=data | {"emulated": True}))
    assert time_per_step(emulated) == "emulated, no timing"
