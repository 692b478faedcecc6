"""The command on good input: help, exit codes, tables and JSON."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dq_toolchain import backends
from dq_toolchain.calibrate import run
from dq_toolchain.toolchain.cli import calibration
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.formats.report import first_seeds, write_report
from tests.toolchain import devices
from tests.toolchain.conftest import SEEDS
from tests.toolchain.spoil import QUICK

COMMANDS = ("calibrate", "compare", "export", "run", "generate", "validate", "doctor", "analyze", "inspect", "targets")
SMALL = "[calibrate]\nsettling = 0\ngroup_iterations = 0\n[reference]\nseeds = 2\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_the_command_does_and_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"Usage: dq-toolchain {command}" in out
    assert "Examples:" in out
    assert f"dq-toolchain {command}" in out.split("Examples:")[1]
    assert err == ""


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_no_arguments_show_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments) == 0
    out, err = capsys.readouterr()
    listed = [
        line.split()[0] for line in out.split("Commands:")[1].splitlines() if line.startswith("  ") and line[2] != " "
    ]
    assert listed[: len(COMMANDS)] == list(COMMANDS), "in the order of the chain"
    assert err == ""


def test_help_does_not_wait_for_torch() -> None:
    script = (
        "import sys\nfrom dq_toolchain.toolchain.cli.entry import run_command\ncode = run_command(['calibrate', '--help'])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_calibrate_then_inspect_prints_json(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (box / "small.toml").write_text(SMALL)
    assert run_command(["calibrate", "--model", "model", "-r", "small.toml", *QUICK, "--out", "new", "--json"]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    note, minutes = err.splitlines()
    assert note.startswith("note: [reference] seeds is 2: ")
    assert "quick takes about" in minutes
    assert (summary["model"], summary["step_groups"], summary["network_calls"], summary["held_out_seeds"]) == (
        "model",
        2,
        4,
        2,
    )
    assert sorted(p.name for p in (box / "new").iterdir()) == ["calibration"]
    assert run_command(["inspect", "--out", "new", "--json"]) == 0
    inspection = json.loads(capsys.readouterr().out)
    assert len(inspection["sites"]) == summary["sites"]
    assert {site["activation_bits"] for site in inspection["sites"]} == {8}
    assert run_command(["inspect", "new/calibration"]) == 0
    out = capsys.readouterr().out
    assert all(site["site"] in out for site in inspection["sites"])
    assert all(row["layer"] in out and row["reason"] in out for row in inspection["float_operations"])


def test_validate_judges_and_its_exit_code_is_the_verdict(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = box / "dq-out" / "executorch" / "report" / "report.json"
    assert run_command(["validate", str(report), "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["passed"], verdict["verdict"], verdict["more_seeds"]) == (True, "pass", None)
    assert run_command(["validate", str(report.parent), "--html", "page.html"]) == 0
    assert "pass" in capsys.readouterr().out
    assert "<html" in (box / "page.html").read_text()
    made = devices.case(seeds=SEEDS)
    latents, outputs = devices.run(made.artifact, made.reference)
    few = first_seeds(made.reference, 4)
    write_report(report.parent, devices.header(report.parents[1]), latents[:, :4], outputs[:, :4], few)
    assert run_command(["validate", str(report), "--html", "page.html"]) == 3
    assert f"not decided, {SEEDS - 4} more seeds needed (4 seen)" in capsys.readouterr().out
    assert "Not decided" in (box / "page.html").read_text()
    assert run_command(["validate", str(report), "--json"]) == 3
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["passed"], verdict["verdict"], verdict["more_seeds"]) == (False, "not decided", SEEDS - 4)
    devices.write_run(box / "dq-out" / "executorch", made, (latents * 1.5, outputs * 1.5))
    assert run_command(["validate", str(report)]) == 1
    out, err = capsys.readouterr()
    assert "FAIL" in out
    assert err == ""


def test_inspect_shows_a_bundle(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["inspect", "dq-out/executorch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "executorch"
    assert run_command(["inspect", "dq-out/executorch"]) == 0
    assert "int8 x int8 -> int32" in capsys.readouterr().out


def test_targets_lists_every_backend_installed_or_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["targets", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(backends.names())
    module = backends.load("executorch")
    missing = dataclasses.replace(module.describe(), version=None)
    monkeypatch.setattr(module, "describe", lambda: missing)
    assert run_command(["targets"]) == 0
    out = capsys.readouterr().out
    assert "executorch" in out
    assert "pip install" in out
    assert run_command(["export"]) == 2
    assert "pip install" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(
    box: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "calibrate", interrupted)
    assert run_command(["calibrate", "--model", "model"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to continue\n"


def test_our_own_mistake_is_not_dressed_as_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(calibration, "load_recipe", broken)
    with pytest.raises(ZeroDivisionError):
        run_command(["calibrate"])
