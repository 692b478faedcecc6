"""Damaged bundles, reports, artifacts, recipes and model configs through the real commands: never more than one line.

Property of every input: the exit code is one of the four; a refusal is one short line and no traceback; nothing that steers a
terminal is printed; nothing but what a command may write is written; time and memory stay small.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dq_toolchain.calibrate import pipeline
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.console.printable import INVISIBLE
from dq_toolchain.toolchain.errors import CalibrationError
from tests.toolchain.fuzz_subjects import BUNDLE, RECIPE, REPAIRED, REPORT, SUBJECTS, Subject
from tests.toolchain.fuzzing import damaged, damaged_tensors, damaged_toml, text_of, torn

LONGEST_LINE, LONGEST_SECONDS, MOST_MEMORY = 1500, 20.0, 700 * 2**20
STOPPED = "stopped before the first rollout"


@pytest.fixture(scope="module")
def arena(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box that every input starts from, and that is made good again after each."""
    box = Path(shutil.copytree(originals, tmp_path_factory.mktemp("arena") / "box"))
    for name in ("report.json", "report.safetensors"):  # where `run` puts them
        (box / BUNDLE / "report" / name).rename(box / REPORT / name)
    (box / BUNDLE / "report").rmdir()
    path = box / REPORT / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bundle": "."}))
    (box / "recipe.toml").write_text(RECIPE)
    (box / "prompts.txt").write_text("[/red] the fox\n")
    return box


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration ends where its input is checked."""

    def stop(*_: object) -> None:
        raise CalibrationError(STOPPED)

    monkeypatch.setattr(pipeline, "measure", stop)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything in a folder with its size and the time of its last change."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(place, name))
            found[os.path.relpath(os.path.join(place, name), folder)] = (status.st_size, status.st_mtime_ns)
    return found


@st.composite
def inputs(draw: st.DrawFn, contents: dict[Path, bytes]) -> tuple[Subject, bytes, tuple[str, ...], bool]:
    """(what is damaged, its new content, the command line, whether hashes are made good again)."""
    subject = draw(st.sampled_from(SUBJECTS))
    good = contents[subject.file]
    if subject.file.suffix == ".safetensors":
        data = draw(damaged_tensors(good))
    elif subject.file.suffix == ".toml" or draw(st.integers(0, 9)) == 0:
        data = draw(damaged_toml(good) if subject.file.suffix == ".toml" else torn(good))
    else:
        data = text_of(draw(damaged(json.loads(good)))).encode("utf-8", "surrogatepass")
    return subject, data, draw(st.sampled_from(subject.commands)), draw(st.integers(0, 9)) > 0


def check(
    box: Path,
    capsys: pytest.CaptureFixture[str],
    case: tuple[Subject, bytes, tuple[str, ...], bool],
    contents: dict[Path, bytes],
) -> None:
    subject, data, command, repaired = case
    (box / subject.file).write_bytes(data)
    if repaired:
        subject.repair(box)
    before, memory, begin = listing(box.parent), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        code = run_command(list(command))
        out, err = capsys.readouterr()
        assert time.monotonic() - begin < LONGEST_SECONDS
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 < MOST_MEMORY
        assert code in (0, 1, 2, 3)
        assert "Traceback" not in out + err
        assert not [c for c in out + err if c != "\n" and unicodedata.category(c) in INVISIBLE]
        if code == 2:
            lines = err.splitlines()
            assert [line[:7] for line in lines if not line.startswith(("note: ", "--effort "))] == ["error: "], err
            assert max(map(len, lines)) < LONGEST_LINE
            assert out == ""
        after = listing(box.parent)
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        assert not [name for name in changed if name != "box" and not name.startswith("box/new")], (
            "written outside of --out"
        )
    finally:
        capsys.readouterr()
        shutil.rmtree(box / "new", ignore_errors=True)
        for name in {subject.file, *REPAIRED}:
            (box / name).write_bytes(contents[name])


def run_fuzz(count: int, arena: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(arena)
    files = [path.relative_to(arena) for path in arena.rglob("*") if path.is_file()]
    contents = {path: (arena / path).read_bytes() for path in files}

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(inputs(contents))
    def every(case: tuple[Subject, bytes, tuple[str, ...], bool]) -> None:
        check(arena, capsys, case, contents)

    every()


def test_a_hundred_and_fifty_inputs(
    arena: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_fuzz(150, arena, capsys, monkeypatch)


@pytest.mark.slow
def test_ten_thousand_inputs(arena: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run_fuzz(10_000, arena, capsys, monkeypatch)


def test_the_good_input_is_good(
    arena: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nothing behind the first check would ever be reached."""
    monkeypatch.chdir(arena)
    for command in dict.fromkeys(command for subject in SUBJECTS for command in subject.commands):
        code = run_command(list(command))
        out, err = capsys.readouterr()
        if command[0] == "calibrate":
            assert STOPPED in err or "nowhere" in err, err
        elif command[0] == "run":
            assert "cannot load the program" in err or "needs executorch" in err, err
        elif command[0] == "doctor" and "--json" not in command:  # its program is a placeholder
            assert [line.split(":")[0] for line in out.splitlines() if line.startswith("FAIL")] in (
                [],
                ["FAIL program"],
            ), out
        elif command[0] != "doctor":
            assert code in (0, 3), (command, out, err)  # few seeds decide nothing
