"""Whatever a file calls itself, printing it neither raises nor obeys it: every function that prints is fed hostile names."""

from __future__ import annotations

import dataclasses
import inspect
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table

from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.toolchain.checks import Check
from dq_toolchain.toolchain.cli import entry
from dq_toolchain.toolchain.console.printable import INVISIBLE, LONGEST, printable, visible
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.console.terminal import Terminal, line, plain
from dq_toolchain.toolchain.parts.chain import FP32, Chain, Stage
from dq_toolchain.toolchain.parts.clip_scores import ClipScores
from dq_toolchain.toolchain.render import sensitivity, show, summary
from dq_toolchain.toolchain.verdict.judge import validate
from dq_toolchain.toolchain.verdict.result import Verdict
from tests.toolchain.devices import case, run, write_bundle, write_run

HOSTILE = (
    "[/red] the fox jumps",
    "[bold",
    "[link=https://x]y[/link]",
    "[/]",
    "[red]a[/blue]",
    "\\",
    "[\\",
    "x\\[/red]",
    ":smile:",
    "[@click=app.quit]x",
    "\x1b]0;pwn\x07\x1b[31mRED",
    "\x9b31m",
    "\r over",
    "\u202egnp.exe",
    "two\nlines",
    "\u2028",
    "\x00",
    "\ud800",
    "\u200b",
    "x" * 5000,
    "",
)
"""Markup that does not close, links, escapes, marks that turn the direction of writing, and what no encoding holds."""


def terminal() -> tuple[Terminal, io.StringIO]:
    """A console that colours nothing: every escape in its output was in the text."""
    out = io.StringIO()
    return Terminal(file=out, width=160, color_system=None), out


def assert_harmless(text: str) -> None:
    assert not [c for c in text if c != "\n" and unicodedata.category(c) in INVISIBLE], repr(text)[:300]


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    made = case(seeds=2)
    bundle = write_bundle(tmp_path_factory.mktemp("judged"), made)
    return validate(write_run(bundle, made, run(made.artifact, made.reference)))


def renamed(verdict: Verdict, name: str) -> Verdict:
    """The verdict on a device that calls everything ``name``."""
    data = {
        **verdict.report.data,
        "target": name,
        "device": name,
        "compute_unit": name,
        "runtime": {"name": name, "version": name},
    }
    report = dataclasses.replace(verdict.report, data=data, path=Path(name or "x"))
    bundle = dataclasses.replace(verdict.bundle, target=name, form=name, model_id=name)
    checks = tuple(dataclasses.replace(check, passed=False, detail=name) for check in verdict.claims)
    return dataclasses.replace(verdict, report=report, bundle=bundle, claims=checks)


def calibration(name: str) -> dict[str, Any]:
    stages = [
        {"stage": name, "iterations": 3, "validation_psnr": 20.0},
        {"unit": name, "phase": name, "before": 1.0, "after": 0.5},
    ]
    budget = {"asked": name, "size": 0.2, "psnr_before_fit": 20.0, "layers": {"4": 2}, "in_float": 1, "met": False}
    return {
        "calibration": name,
        "model": name,
        "sites": 3,
        "step_groups": 2,
        "network_calls": 4,
        "guidance": 1.0,
        "held_out_seeds": 2,
        "simulation_psnr_median": 30.0,
        "simulation_psnr_p10": 20.0,
        "stages": stages,
        "budget": budget,
    }


def bundle_summary(name: str) -> dict[str, Any]:
    operation = {"name": name, "where": name, "arithmetic": name, "count": 3, "why": name}
    return {
        "bundle": name,
        "target": name,
        "form": name,
        "methods": [name],
        "step_groups": 1,
        "sizes": {name: 10},
        "operations": [operation],
    }


def inspection(name: str) -> dict[str, Any]:
    site = {"site": name, "kind": name, "weight_bits": 8, "activation_bits": 8, "scheme": name, "range": [[-1.0, 1.0]]}
    return {
        "calibration": name,
        "model": name,
        "step_groups": [[0, 1]],
        "sites": [site],
        "outputs": [{"output": name, "range": [[-1.0, 1.0]]}],
        "step_vectors": None,
        "correction": {},
        "float_operations": [{"layer": name, "kind": name, "reason": name}],
        "method": name,
    }


def targets(name: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "library": name,
            "version": None,
            "install": name,
            "schemes": [name],
            "weight_bits": [8],
            "verified": name,
            "default": True,
            "any_size": True,
        }
    ]


def sensitivities(name: str) -> list[dict[str, Any]]:
    return [{"layer": name, "bits": 8, "errors": {"4": 0.1, "8": 0.001}, "share": 1.0}]


def chain(name: str) -> Chain:
    picture = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    scores = ClipScores(model=name, prompt={FP32: (0.5,), name: (0.4,)}, picture={name: (0.9,)})
    return Chain((name,), picture, (Stage(name, name, (30.0,), (0.9,), picture),), scores)


PRINTERS: dict[str, Callable[[Console, str, Verdict], object]] = {
    "show_calibration": lambda console, name, _: summary.show_calibration(console, calibration(name)),
    "show_bundle": lambda console, name, _: summary.show_bundle(console, bundle_summary(name)),
    "show_inspection": lambda console, name, _: summary.show_inspection(console, inspection(name)),
    "show_targets": lambda console, name, _: summary.show_targets(console, targets(name)),
    "show_sensitivity": lambda console, name, _: sensitivity.show_sensitivity(console, sensitivities(name)),
    "show_chain": lambda console, name, _: show.show_chain(console, chain(name)),
    "show_checks": lambda console, name, _: show.show_checks(console, [Check("doctor.files", False, None, name)]),
    "show_verdict": lambda console, name, verdict: show.show_verdict(console, renamed(verdict, name)),
    "show_comparison": lambda console, name, verdict: show.show_comparison(console, [renamed(verdict, name)] * 2),
}


def test_every_function_that_prints_is_tried() -> None:
    found = {
        name
        for module in (summary, show, sensitivity)
        for name, value in vars(module).items()
        if name.startswith("show_") and inspect.isfunction(value) and value.__module__ == module.__name__
    }
    assert found == set(PRINTERS)


@pytest.mark.parametrize("printer", PRINTERS)
def test_hostile_names_are_printed_as_they_are(printer: str, verdict: Verdict) -> None:
    for name in HOSTILE:
        console, out = terminal()
        PRINTERS[printer](console, name, verdict)
        assert_harmless(out.getvalue())
        if name.startswith("[red]"):
            assert "[red]a[/blue]" in out.getvalue().replace("\n", ""), "markup was taken for markup"


def test_what_the_reporter_says_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    for name in HOSTILE:
        reporter = GridReporter()
        reporter.say(name)
        reporter.warn(name)
        with reporter.task(name, 2) as advance:
            advance(note=name)
        with reporter.bar(name) as progress:
            progress(1, 2)
        with reporter.grid(3) as update:
            update(1, name, None)
        out, err = capsys.readouterr()
        assert out == ""
        assert_harmless(err)
    Reporter().warn("[/red] the fox")
    assert capsys.readouterr().err == "note: [/red] the fox\n"


def test_bars_of_a_terminal_take_any_title() -> None:
    for name in HOSTILE:
        reporter = Reporter()
        reporter.console, out = terminal()
        reporter.bars = True
        with reporter.task(name, 2) as advance:
            advance(note=name)
        assert_harmless(out.getvalue())


def test_a_string_cannot_steer_the_terminal_wherever_rich_is_given_it() -> None:
    """In a line, a cell, a heading or a title, without any care of who prints it; what is coloured is what we colour."""
    for name in HOSTILE:
        console, out = terminal()
        table = Table(name, title=name)
        table.add_row(name)
        console.print(table)
        console.print(name)
        console.print(line("kind: ", plain(name, "bold")))
        assert_harmless(out.getvalue())
    coloured = io.StringIO()
    Terminal(file=coloured, force_terminal=True, color_system="standard").print(
        line("a ", plain("[red]b[/red]", "bold"))
    )
    assert coloured.getvalue() == "a \x1b[1m[red]b[/red]\x1b[0m\n"


def test_an_error_is_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    for name in HOSTILE:
        assert entry._fail(f"cannot read {name}") == 2
        err = capsys.readouterr().err
        assert_harmless(err)
        assert err.startswith("error: cannot read")
        assert err.count("\n") == 1
        assert len(err) < 1100


def test_printable_keeps_what_can_be_read() -> None:
    assert printable("Äpfel, 日本語, 🦊 [x]") == "Äpfel, 日本語, 🦊 [x]"
    assert printable("a\n\tb \x1b[31m") == r"a b \x1b[31m"
    assert printable("x" * 600) == "x" * (LONGEST - 3) + "..."
    assert visible("a  b\nc\x07") == "a  b\nc\\x07"
