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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dq_toolchain.calibrate import pipeline
from dq_toolchain.toolchain.entry import run_command
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.files import seal, sha256
from dq_toolchain.toolchain.printable import INVISIBLE
from tests.toolchain.fuzzing import damaged, damaged_tensors, text_of, torn
from tests.toolchain.spoil import QUICK

LONGEST_LINE, LONGEST_SECONDS, MOST_MEMORY = 1500, 20.0, 700 * 2**20
STOPPED = "stopped before the first rollout"
CALIBRATION, BUNDLE = Path("dq-out/calibration"), Path("dq-out/executorch")
REPORT = BUNDLE
RECIPE = """
[model]
lora_scale = 1.0
[sampler]
steps = 4
guidance = 2.0
[quantize]
weight_bits = 4
keep_float = ["conv_in", "mid_block.*"]
step_groups = 2
[calibrate]
method = "accuquant"
samples = 8
ranges = "mse"
[conditioning]
null_label = 10
[reference]
seeds = 2
"""


@dataclass(frozen=True)
class Subject:
    """A file that is damaged, and the command lines that then read it. ``repair``: makes hashes and seals good again."""

    file: Path
    commands: tuple[tuple[str, ...], ...]
    repair: Callable[[Path], None] = lambda box: None


def _reseal(path: Path, **changes: Any) -> None:
    """Seal a JSON file again, if it still is one."""
    try:
        data = json.loads(path.read_bytes())
        path.write_text(json.dumps(seal({**data, **changes})))
    except (ValueError, TypeError, RecursionError):
        return


def _rehash(folder: Path, name: str, json_name: str, sealed: bool) -> None:
    path = folder / json_name
    data = json.loads(path.read_text())
    data["files"][name] = sha256(folder / name)
    if name in data.get("sizes", {}):
        data["sizes"][name] = (folder / name).stat().st_size
    path.write_text(json.dumps(seal(data) if sealed else data))


def _report_of(box: Path) -> None:
    """The report names the bundle as it is now."""
    path = box / REPORT / "report.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "bundle_sha256": sha256(box / BUNDLE / "bundle.json")}))


def _bundle(box: Path) -> None:
    """Sealed again as text: what is odd about its numbers stays."""
    path = box / BUNDLE / "bundle.json"
    _seal_text(path)
    _report_of(box)


def _seal_text(path: Path) -> None:
    text = path.read_text("utf-8", "surrogateescape")
    try:
        digest = seal(json.loads(text))["content_sha256"]
        old = json.loads(text).get("content_sha256")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return
    if isinstance(old, str) and len(old) == 64:
        path.write_text(text.replace(old, digest), "utf-8", "surrogateescape")


def _tensors_of_bundle(box: Path) -> None:
    _rehash(box / BUNDLE, "reference.safetensors", "bundle.json", sealed=True)
    _report_of(box)


def _tensors_of_artifact(name: str) -> Callable[[Path], None]:
    return lambda box: _rehash(box / CALIBRATION, name, "calibration.json", sealed=True)


def _model(name: str) -> Subject:
    return Subject(Path("model") / name, (("calibrate", "--model", "model", *QUICK, "--out", "new"),))


READ_BUNDLE = (
    ("doctor", str(BUNDLE)),
    ("doctor", str(BUNDLE), "--json"),
    ("inspect", str(BUNDLE)),
    ("validate", str(REPORT)),
)
SUBJECTS = (
    Subject(BUNDLE / "bundle.json", READ_BUNDLE, _bundle),
    Subject(BUNDLE / "bundle.json", READ_BUNDLE, _bundle),
    Subject(
        BUNDLE / "reference.safetensors",
        (*READ_BUNDLE, ("run", "--bundle", str(BUNDLE), "--report", "new")),
        _tensors_of_bundle,
    ),
    Subject(
        REPORT / "report.json",
        (
            ("validate", str(REPORT)),
            ("validate", str(REPORT), "--json"),
            ("validate", str(REPORT), str(REPORT)),
            ("doctor", str(BUNDLE)),
        ),
    ),
    Subject(
        REPORT / "report.safetensors",
        (("validate", str(REPORT)),),
        lambda box: _rehash(box / REPORT, "report.safetensors", "report.json", sealed=False),
    ),
    Subject(
        CALIBRATION / "calibration.json",
        (("inspect",), ("inspect", "--json")),
        lambda box: _seal_text(box / CALIBRATION / "calibration.json"),
    ),
    *(
        Subject(CALIBRATION / f"{name}.safetensors", (("inspect",),), _tensors_of_artifact(f"{name}.safetensors"))
        for name in ("weights", "activations", "float")
    ),
    Subject(
        Path("recipe.toml"),
        (
            ("calibrate", "--recipe", "recipe.toml", "--model", "nowhere", "--out", "new"),
            ("calibrate", "-r", "recipe.toml", "--model", "model", "--out", "new"),
        ),
    ),
    _model("unet/config.json"),
    _model("scheduler/scheduler_config.json"),
    Subject(BUNDLE / "bundle.json", READ_BUNDLE, _bundle),
    Subject(REPORT / "report.json", (("validate", str(REPORT)),)),
)


REPAIRED = (BUNDLE / "bundle.json", REPORT / "report.json", CALIBRATION / "calibration.json")


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


@st.composite
def damaged_toml(draw: st.DrawFn, good: bytes) -> bytes:
    """A recipe with a line changed, dropped, doubled, or torn."""
    if draw(st.integers(0, 4)) == 0:
        return draw(torn(good))
    lines = good.decode().strip().split("\n")
    at = draw(st.integers(0, len(lines) - 1))
    key = lines[at].split("=")[0]
    value = draw(
        st.sampled_from(
            [
                "-1",
                "0",
                "1e999",
                "nan",
                "inf",
                "9" * 30,
                '"\\u001b[31m"',
                "[]",
                "{}",
                "[[]]",
                "true",
                '"../evil"',
                '"[/red]"',
                "1979-05-27",
                "'''\n'''",
                "[" * 200 + "]" * 200,
                "[" * 50_000,
                '"' + "x" * 4000 + '"',
                "",
                "0x10",
                "\x00",
            ]
        )
    )
    return "\n".join(
        [
            *lines[:at],
            *draw(
                st.sampled_from([[f"{key}= {value}"], [], [lines[at]] * 2, [f"{value}"], [f"x = {value}", lines[at]]])
            ),
            *lines[at + 1 :],
        ]
    ).encode()


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
            assert [line[:7] for line in lines if not line.startswith("note: ")] == ["error: "], err
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


def test_three_hundred_inputs(arena: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run_fuzz(300, arena, capsys, monkeypatch)


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
            assert code == 0, (command, out, err)
