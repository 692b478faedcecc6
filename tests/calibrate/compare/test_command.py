"""The command: good input gives tables or JSON, every mistake one line and exit code 2 before any work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dq_toolchain.calibrate.compare import command
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.compare.run import run
from dq_toolchain.toolchain.cli.entry import run_command
from tests.calibrate.compare.fake import RECIPE, FakeCalibrator

SMALL = ("--methods", "minmax,mse", "--steps", "3", "--seeds", "2", "--held-out", "3")


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a model and a recipe."""
    (tmp_path / "model").symlink_to(tiny_model)
    (tmp_path / "dq.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(*arguments: str) -> int:
    return run_command(["compare", "--model", "model", "--recipe", "dq.toml", *arguments])


def with_fake(monkeypatch: pytest.MonkeyPatch, fake: FakeCalibrator) -> None:
    def run_fake(grid: Grid, reporter: GridReporter) -> None:
        run(grid, reporter, fake)

    monkeypatch.setattr(command, "run", run_fake)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["compare", "--help"]) == 0
    out, err = capsys.readouterr()
    assert "dq-toolchain compare" in out.split("Examples:")[1]
    assert err == ""


def test_a_grid_gives_a_table_a_page_and_json(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeCalibrator(place / "log")
    with_fake(monkeypatch, fake)
    assert compare(*SMALL, "--json", "--out", "out") == 0
    out, err = capsys.readouterr()
    assert [line.partition(",")[0] for line in err.splitlines()] == [f"{done}/4 cells done" for done in range(4)]
    data = json.loads(out)
    assert [row["method"] for row in data["rows"]] == ["minmax", "mse"]
    assert data == json.loads((place / "out" / "compare" / "compare.json").read_text())
    assert compare(*SMALL, "--out", "out") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "ddim3-w8a8" in out
    assert "out/compare/compare.html" in out
    assert len(fake.calls) == 4


def test_a_failed_cell_is_exit_code_1(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_fake(monkeypatch, FakeCalibrator(place / "log", failing=("mse",)))
    assert compare(*SMALL) == 1
    out, _ = capsys.readouterr()
    assert out.count("failed ddim3-w8a8-mse-s") == 2


def test_the_calibrator_itself_through_the_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--methods", "minmax", "--steps", "3", "--held-out", "3", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["figures"]["psnr_median"]["mean"] > 30
    assert row["figures"]["calibration_seconds"]["mean"] > 0


MISTAKES = {
    "unknown method": (("--methods", "minmax,odd"), r"--methods: got 'odd', allowed are accuquant, "),
    "methods that do not go together": (("--methods", "accuquant+qdiffusion"), r"both fit weights"),
    "method twice": (("--methods", "mse,mse"), r"--methods: got 'mse,mse', which names an entry twice"),
    "no bits": (("--bits", ""), r"--bits: got ''"),
    "bits": (("--bits", "W8A8,W4"), r"--bits: got 'W4', allowed are W with 2-8 and A with 2-8 or 16 bits"),
    "steps": (("--steps", "0"), r"--steps: got '0', allowed are numbers 1-1000"),
    "fewer steps than step groups": (("--steps", "3,1"), r"step groups must be 1-1"),
    "no seeds": (("--seeds", "0"), r"--seeds: got 0, allowed are 1-"),
    "seeds that are no number": (("--seeds", "many"), r"--seeds: got 'many'"),
    "one held-out seed": (("--held-out", "1"), r"--held-out: got 1, allowed are 2-100000"),
    "nowhere": (("--on", "moon"), r"--on: got 'moon', allowed are here \(this process\) and ray"),
    "no model": (("--model", "nowhere"), r"nowhere/unet/config\.json.*--model takes a diffusers folder"),
    "no recipe": (("--recipe", "nowhere.toml"), r"cannot read nowhere\.toml"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = MISTAKES[name]
    before = sorted(place.iterdir())
    assert compare(*SMALL, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert sorted(place.iterdir()) == before


def test_an_output_folder_that_is_a_file_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "taken").write_text("")
    assert compare(*SMALL, "--out", "taken") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "taken" in err
