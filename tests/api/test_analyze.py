"""``dq.analyze`` and the command give the same, of a pipeline with a text encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dq_toolchain as dq
from dq_toolchain.toolchain.cli.entry import run_command


def test_the_command_prints_what_the_function_gives(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[str, int, int]] = []
    found = dq.analyze(drawn / "calibration", runs=2, progress=lambda *done: calls.append(done))
    assert ("errors of layers", 2, 2) in calls
    assert run_command(["analyze", str(drawn / "calibration"), "--runs", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_json()))
    assert run_command(["analyze", str(drawn / "calibration"), "--runs", "2"]) == 0
    assert found.layers[0].layer in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--runs", "1"], "--runs: got 1"), (["--model", "nowhere"], "nowhere"), (["--device", "abacus"], "device")],
)
def test_bad_input_ends_in_one_line(
    arguments: list[str], said: str, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in drawn.iterdir())
    assert run_command(["analyze", str(drawn / "calibration"), *arguments]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert said in told[-1]
    assert sorted(path.name for path in drawn.iterdir()) == before
