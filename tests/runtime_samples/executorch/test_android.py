"""What is for the phone, as far as a machine without one can tell."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.runtime_samples.building import SAMPLES
from tests.runtime_samples.phone import Phone, executable

ANDROID = SAMPLES / "executorch" / "android"
PROGRAM = """#!/usr/bin/env python3
# Writes down what it was started with, in the place of a report or a picture.
import json, pathlib, sys
words = sys.argv[1:]
out = pathlib.Path(words[3])
if words[2] == "--report":
    out.mkdir()
    (out / "report.safetensors").write_text("tensors")
    out /= "report.json"
out.write_text(json.dumps({"words": words, "bundle": sorted(p.name for p in pathlib.Path(words[1]).iterdir())}))
"""
PROMPT = 'it\'s a "red" ball; $(reboot) `x` \\ * \U0001f600\nnew line'


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    for name in ("dq-run", "dq-generate"):
        executable(tmp_path / name, PROGRAM)
    return Phone(tmp_path, "bundle.json", "model.pte")


def test_a_picture_of_a_prompt(phone: Phone, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    options = ("--prompt", PROMPT, "--negative-prompt", "", "--seed", "7", "--low-memory")
    done = phone.run(ANDROID / "run.sh", tmp_path / "dq-generate", phone.bundle, picture, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{picture}\n"
    written = json.loads(picture.read_text())
    assert written["words"][4:] == list(options)
    assert written["bundle"] == ["bundle.json", "model.pte"]
    assert list(phone.temporary.iterdir()) == [], "nothing stays on the phone"


def test_a_report(phone: Phone, tmp_path: Path) -> None:
    report = tmp_path / "report"
    done = phone.run(ANDROID / "run.sh", tmp_path / "dq-run", phone.bundle, report, "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert json.loads((report / "report.json").read_text())["words"][4:] == ["--seeds", "2"]
    assert (report / "report.safetensors").read_text() == "tensors"
    assert sorted(path.name for path in report.iterdir()) == ["report.json", "report.safetensors"]
    assert list(phone.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "out", "options", "text"),
    [
        ("dq-run", "picture.png", (), "picture.png is written by dq-generate, got dq-run; dq-run writes a folder"),
        ("dq-generate", "report", (), "report is written by dq-run, got dq-generate"),
        ("dq-generate", "p.png", ("--out", "x.png"), "--out is not for this script, which chooses the place on the"),
        ("dq-run", "report", ("--bundle", "x"), "--bundle is not for this script"),
    ],
)
def test_what_is_refused(
    program: str, out: str, options: tuple[str, ...], text: str, phone: Phone, tmp_path: Path
) -> None:
    done = phone.run(ANDROID / "run.sh", tmp_path / program, phone.bundle, tmp_path / out, *options)
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / out).exists()
    assert list(phone.temporary.iterdir()) == []


@pytest.mark.parametrize(("name", "out"), [("dq-generate", "picture.png"), ("dq-run", "report")])
def test_a_program_that_fails_leaves_nothing_on_the_phone(name: str, out: str, phone: Phone, tmp_path: Path) -> None:
    executable(tmp_path / name, f"#!/bin/sh\necho '{name}: no' >&2; exit 2\n")
    done = phone.run(ANDROID / "run.sh", tmp_path / name, phone.bundle, tmp_path / out)
    assert done.returncode == 2
    assert f"{name}: no" in done.stderr
    assert list(phone.temporary.iterdir()) == []
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "ANDROID_NDK is not set"),
        ({"ANDROID_NDK": "ndk"}, "android.toolchain.cmake; set ANDROID_NDK"),
        ({"ANDROID_NDK": "whole", "LIBPNG": "none"}, "there is no folder none; set LIBPNG to a source tree of libpng"),
        ({"ANDROID_NDK": "whole", "LIBPNG": "ndk"}, "ndk is no source tree of libpng (it has no png.h)"),
    ],
)
def test_build_without_what_it_needs(given: dict[str, str], text: str, tmp_path: Path) -> None:
    toolchain = tmp_path / "whole" / "build" / "cmake" / "android.toolchain.cmake"
    for folder in (tmp_path / "executorch", tmp_path / "ndk", toolchain.parent):
        folder.mkdir(parents=True)
    toolchain.touch()
    environment = {name: value for name, value in os.environ.items() if name not in ("ANDROID_NDK", "LIBPNG")}
    done = subprocess.run(
        [ANDROID / "build.sh", "executorch"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment | given,
    )  # fmt: skip
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("libpng", [None, "png"])
def test_build_makes_both_programs_where_libpng_is(libpng: str | None, tmp_path: Path) -> None:
    """`cmake` writes down what it was asked."""
    asked = tmp_path / "asked"
    executable(tmp_path / "bin" / "cmake", f'#!/bin/sh\necho "$*" >> {asked}\n')
    toolchain = tmp_path / "build" / "cmake" / "android.toolchain.cmake"
    for folder in (toolchain.parent, tmp_path / "png", tmp_path / "executorch"):
        folder.mkdir(parents=True)
    toolchain.touch()
    (tmp_path / "png" / "png.h").touch()
    environment = {name: value for name, value in os.environ.items() if name != "LIBPNG"}
    environment |= {"ANDROID_NDK": str(tmp_path), "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [ANDROID / "build.sh", "executorch", "out"], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=environment | ({"LIBPNG": libpng} if libpng else {}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    configured, built = asked.read_text().splitlines()
    programs = ["dq-run", "dq-generate"] if libpng else ["dq-run"]
    assert f"--target {' '.join(programs)} --parallel" in built
    assert configured.endswith(f"-DDQ_LIBPNG={tmp_path / 'png' if libpng else ''}")
    assert done.stdout.splitlines() == [f"out/{name}" for name in programs]
    assert ("dq-generate was not built; set LIBPNG" in done.stderr) == (libpng is None)
