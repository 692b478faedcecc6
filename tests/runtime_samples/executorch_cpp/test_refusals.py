"""Damaged bundles and bad command lines: exit code 2, one line, no report, under the sanitizers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime_samples.executorch_cpp.conftest import GOLDEN, assert_refused, replay, run, seal_files

CASE = "ddim-guided"
DAMAGED = sorted(path.name for path in (GOLDEN / "damaged").iterdir())


DAMAGED_BUNDLES = sorted(path.name for path in (GOLDEN / "damaged-bundles").iterdir())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(GOLDEN / CASE / "bundle", tmp_path / "bundle"))


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(name: str, bundle: Path, sanitized: Path, tmp_path: Path) -> None:
    file = GOLDEN / "damaged" / name
    if file.suffix == ".json":
        shutil.copyfile(file, bundle / "bundle.json")
    else:
        shutil.copyfile(file, bundle / "reference.safetensors")
        seal_files(bundle)
    done = replay(sanitized, CASE, tmp_path / "report", bundle=bundle)
    assert_refused(done, "not valid JSON" if file.suffix == ".json" else "reference.safetensors is damaged")
    assert "SHA-256" not in done.stderr
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("name", DAMAGED_BUNDLES)
def test_damaged_bundles(name: str, sanitized: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(GOLDEN / "ddim-corrected" / "bundle", tmp_path / "bundle"))
    shutil.copyfile(GOLDEN / "damaged-bundles" / name, copy / "bundle.json")
    done = replay(sanitized, "ddim-corrected", tmp_path / "report", bundle=copy)
    assert_refused(done, "bundle.json: ")
    assert "correction" in done.stderr.replace(str(copy), "")
    assert not (tmp_path / "report").exists()


def _set(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = to
    return change


def _drop(key: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        del data[key]
    return change


WRONG: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "schema": (_set("schema", to="dq-toolchain/report"), "no dq-toolchain/bundle"),
    "version": (_set("schema_version", to=2), "schema_version 2 is not supported, allowed is 1"),
    "target": (_set("target", to=7), "target must be text, got a number"),
    "no-table": (_drop("table"), "the key table is missing"),
    "guidance": (_set("guidance", to="2"), "guidance must be a number, got text"),
    "methods": (_set("methods", to=["a", "b", "c"]), "there must be 1 method or one for each of 2 step groups, got 3"),
    "steps-twice": (_set("step_groups", to=[[0, 1], [1, 2, 3, 4]]), "step_groups must list the steps 0-4 once, got 1"),
    "steps-missing": (_set("step_groups", to=[[0, 1], [2, 3]]), "step_groups leave out step 4"),
    "looks-back": (_set("table", "a", 0, to=[1.0, 1.0]), "a looks back before the start"),
    "too-large": (_set("table", "c", 0, to=1e300), "c has a number beyond float32"),
    "batch": (_set("inputs", 0, "shape", 0, to=2), "shape of sample must be batch 1"),
    "huge": (_set("inputs", 2, "shape", to=[1, 2**62, 8]), "too large"),
    "other-shape": (_set("inputs", 0, "shape", to=[1, 1, 6, 7]), "sample must be float32 (1, 1, 6, 6)"),
    "dtype": (_set("inputs", 2, "dtype", to="int8"), "dtype of class_labels must be float32 or int64, got int8"),
    "ranges": (_set("inputs", 3, "shape", to=[1, 5]), "ranges must be (2, 5), got (2, 4)"),
    "outside": (_set("files", "../bundle.json", to="0"), "files names a place outside the bundle"),
    "conditioning": (_set("inputs", 2, "name", to="labels"), "there is no tensor cond.labels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_bundles(name: str, bundle: Path, sanitized: Path, tmp_path: Path) -> None:
    change, text = WRONG[name]
    data = json.loads((bundle / "bundle.json").read_text())
    change(data)
    (bundle / "bundle.json").write_text(json.dumps(data))
    assert_refused(replay(sanitized, CASE, tmp_path / "report", bundle=bundle), text)


@pytest.mark.parametrize("name", ["model.bin", "ranges.safetensors", "reference.safetensors"])
def test_changed_files(name: str, bundle: Path, sanitized: Path, tmp_path: Path) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[-1] ^= 1
    (bundle / name).write_bytes(data)
    assert_refused(replay(sanitized, CASE, tmp_path / "report", bundle=bundle), f"{name} was changed after it was written")
    (bundle / name).unlink()
    assert_refused(replay(sanitized, CASE, tmp_path / "report", bundle=bundle), f"cannot read {bundle / name}")


@pytest.mark.parametrize(("arguments", "text"), [
    ([], "--bundle is missing"),
    (["--bundle", "b"], "--report is missing"),
    (["--bundle", "b", "--report"], "--report needs a value"),
    (["--bundle", "", "--report", "r"], "--bundle needs a value"),
    (["--bundle", "b", "--bundle", "b", "--report", "r"], "--bundle is given twice"),
    (["--bundle", "b", "--report", "r", "--threads", "2"], "unknown argument '--threads'"),
    (["--bundle", "b", "--report", "r", "--seeds", "0"], "--seeds must be a number from 1, got '0'"),
    (["--bundle", "b", "--report", "r", "--seeds", "-1"], "got '-1'"),
    (["--bundle", "b", "--report", "r", "--seeds", "99999999999999999999"], "--seeds must be a number from 1"),
    (["--bundle", "b", "--report", "r", "--teacher-forced", "maybe"], "--teacher-forced must be on or off, got 'maybe'"),
    (["--bundle", "no-such-folder", "--report", "r"], "does not exist"),
    (["--bundle", "a\nb", "--report", "r"], "does not exist"),
])
def test_bad_command_lines(arguments: list[str], text: str, sanitized: Path) -> None:
    recording = GOLDEN / CASE / "replay.safetensors"
    assert_refused(run(sanitized / "dq-replay", recording, *arguments), text)


def test_more_seeds_than_there_are(sanitized: Path, tmp_path: Path) -> None:
    done = replay(sanitized, CASE, tmp_path / "report", "--seeds", "4")
    assert_refused(done, "--seeds must be 1-3 (the held-out seeds of the bundle), got 4; change --seeds")


def test_help(sanitized: Path) -> None:
    done = run(sanitized / "dq-replay", "recording", "--help")
    assert done.returncode == 0
    assert "--teacher-forced on|off" in done.stdout


def test_a_report_that_cannot_be_written(sanitized: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(replay(sanitized, CASE, tmp_path / "file" / "report"), "cannot make the folder")
    (tmp_path / "report" / "report.safetensors").mkdir(parents=True)
    assert_refused(replay(sanitized, CASE, tmp_path / "report"), "cannot write")
    assert os.listdir(tmp_path / "report") == ["report.safetensors"], "nothing half-written stays"


def test_an_old_report_goes_before_the_new_one_comes(sanitized: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("old")
    assert replay(sanitized, CASE, tmp_path).returncode == 0
    assert json.loads((tmp_path / "report.json").read_text())["schema"] == "dq-toolchain/report"
    assert sorted(os.listdir(tmp_path)) == ["report.json", "report.safetensors"]
