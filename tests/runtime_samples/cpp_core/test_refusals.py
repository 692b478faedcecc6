"""Damaged bundles and bad command lines: exit code 2, one line, no report, under the sanitizers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.runtime_samples import damaged
from tests.runtime_samples.cpp_core.conftest import GOLDEN, assert_refused, replay, run, seal_files

CASE = "ddim-guided"
DAMAGED = sorted(path.name for path in (GOLDEN / "damaged").iterdir())


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


@pytest.mark.parametrize("name", damaged.listed(damaged.FOR_ALL))
def test_damaged_bundles(name: str, sanitized: Path, tmp_path: Path) -> None:
    copy = damaged.laid_out(damaged.FOR_ALL, name, tmp_path)
    done = replay(sanitized, name.split("/")[0], tmp_path / "report", bundle=copy)
    assert_refused(done)
    assert "\x1b" not in done.stderr
    assert len(done.stderr.replace(str(copy), "")) < 1000
    assert ("correction" in done.stderr.replace(str(copy), "")) == ("correction" in name)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("name", damaged.ON_DISK)
def test_what_is_no_file(name: str, bundle: Path, sanitized: Path, tmp_path: Path) -> None:
    damaged.ON_DISK[name](bundle)
    assert_refused(replay(sanitized, CASE, tmp_path / "report", bundle=bundle), str(bundle))


@pytest.mark.parametrize("name", ["model.bin", "ranges.safetensors", "reference.safetensors"])
def test_changed_files(name: str, bundle: Path, sanitized: Path, tmp_path: Path) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[-1] ^= 1
    (bundle / name).write_bytes(data)
    assert_refused(
        replay(sanitized, CASE, tmp_path / "report", bundle=bundle), f"{name} was changed after it was written"
    )
    (bundle / name).unlink()
    assert_refused(replay(sanitized, CASE, tmp_path / "report", bundle=bundle), f"cannot read {bundle / name}")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--bundle is missing"),
        (["--bundle", "b"], "--report is missing"),
        (["--bundle", "b", "--report"], "--report needs a value"),
        (["--bundle", "", "--report", "r"], "--bundle needs a value"),
        (["--bundle", "b", "--bundle", "b", "--report", "r"], "--bundle is given twice"),
        (["--bundle", "b", "--report", "r", "--threads", "2"], "unknown argument '--threads'"),
        (["--bundle", "b", "--report", "r", "--seeds", "0"], "--seeds must be a number from 1, got '0'"),
        (["--bundle", "b", "--report", "r", "--seeds", "-1"], "got '-1'"),
        (["--bundle", "b", "--report", "r", "--seeds", "99999999999999999999"], "--seeds must be a number from 1"),
        (
            ["--bundle", "b", "--report", "r", "--teacher-forced", "maybe"],
            "--teacher-forced must be on or off, got 'maybe'",
        ),
        (["--bundle", "no-such-folder", "--report", "r"], "does not exist"),
        (["--bundle", "a\nb", "--report", "r"], "does not exist"),
    ],
)
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
