"""What doctor says of contexts and of Qualcomm's library."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.backends.programs import program_checks
from dq_toolchain.backends.qnn import doctor
from dq_toolchain.backends.qnn.phone import attached, phone_check
from dq_toolchain.backends.qnn.vendor import PINNED
from tests.backends.qnn.conftest import Lowered


def contexts_of(lowered: Lowered, *chips: str) -> dict[str, Any]:
    graphs = [f"{method}_ctx.onnx" for method in lowered.bundle.methods]
    return {chip: {"graphs": graphs, "qairt": "v2.51.0"} for chip in chips}


@pytest.fixture(autouse=True)
def no_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No adb but one that a test writes into this folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def told(
    lowered: Lowered, folder: Path, contexts: dict[str, Any], left_out: str = "", size: int = 10, **more: Any
) -> tuple[bool, str]:
    """Whether doctor.contexts passes for a bundle with these contexts, and what it says.

    Args:
        size: of each context's file. more: of placements.json.
    """
    folder.mkdir()
    (folder / "placements.json").write_text(json.dumps({"contexts": contexts, **more}))
    names = [f"{chip}/{name}" for chip in contexts for name in ("steps.bin", *contexts[chip]["graphs"])]
    files = {**lowered.bundle.files, **{name: "0" * 64 for name in names if name != left_out}}
    sizes = {**lowered.bundle.sizes, **dict.fromkeys(names, size)}
    checks = doctor.device_checks(dataclasses.replace(lowered.bundle, files=files, sizes=sizes), folder)
    check = next(check for check in checks if check.name == "doctor.contexts")
    return bool(check.passed), check.detail


def test_doctor_asks_the_target(wide: Lowered) -> None:
    names = [check.name for check in program_checks(wide.bundle, wide.folder)]
    assert "doctor.contexts" in names


def test_a_bundle_without_contexts_is_told_what_a_phone_needs(wide: Lowered, tmp_path: Path) -> None:
    passed, text = told(wide, tmp_path / "none", {})
    assert passed
    assert "export with --soc" in text


def test_contexts_name_chips_and_version(wide: Lowered, tmp_path: Path) -> None:
    passed, text = told(wide, tmp_path / "two", contexts_of(wide, "SM8650", "SM8750"))
    assert passed
    assert "SM8650, SM8750" in text
    assert "2.51.0" in text


def test_a_missing_file_fails(wide: Lowered, tmp_path: Path) -> None:
    passed, text = told(wide, tmp_path / "missing", contexts_of(wide, "SM8750"), "SM8750/steps.bin")
    assert not passed
    assert "SM8750/steps.bin is not in the bundle" in text


def test_a_context_that_no_process_on_the_npu_holds_fails(wide: Lowered, tmp_path: Path) -> None:
    contexts = contexts_of(wide, "SM8750")
    assert told(wide, tmp_path / "fits", contexts, size=2**32 - 1)[0]
    passed, text = told(wide, tmp_path / "large", contexts, size=5 * 2**30)
    assert not passed
    assert "the context for SM8750 has 5.0 GiB, a process on the NPU addresses 4" in text


def test_a_missing_graph_for_the_npu_fails(wide: Lowered, tmp_path: Path) -> None:
    there = json.loads((wide.folder / "placements.json").read_text())["npu_graphs"]
    assert there == [f"model/{method}.npu.onnx" for method in wide.bundle.methods]
    assert told(wide, tmp_path / "there", {}, npu_graphs=there)[0]
    passed, text = told(wide, tmp_path / "gone", {}, npu_graphs=["model/other.npu.onnx"])
    assert not passed
    assert "model/other.npu.onnx, a graph for the NPU, is not in the bundle" in text


ADB = """#!/bin/sh
case "$*" in
get-state) echo "$STATE" ;;
"shell getprop ro.build.version.sdk") printf '%s\\r\\n' "$LEVEL" ;;
"shell getprop ro.soc.model") printf '%s\\r\\n' "$SOC" ;;
esac
"""


@pytest.mark.parametrize(
    ("soc", "level", "said"),
    [
        ("SM8750", "34", ""),
        ("SM8750", "30", "has Android API level 30, Qualcomm's plugin needs 31"),
        ("SM8750", "", "does not say its Android API level"),
        ("SM8550", "34", "has SM8550, the bundle has contexts for SM8650, SM8750; export with --soc SM8550"),
        (
            "SM8750P",
            "34",
            "for SM8650, SM8750; no context is made for it, take a phone with SM8550, SM8650, SM8750, SM8850",
        ),
    ],
)
def test_the_attached_phone(
    soc: str, level: str, said: str, wide: Lowered, no_phone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attached() is None
    (no_phone / "adb").write_text(ADB)
    (no_phone / "adb").chmod(0o755)
    for name, value in (("STATE", "device"), ("SOC", soc), ("LEVEL", level)):
        monkeypatch.setenv(name, value)
    phone = attached()
    assert phone is not None
    check = phone_check(phone, ("SM8650", "SM8750"))
    assert check.passed is (not said)
    assert said in check.detail
    assert "doctor.phone" in [each.name for each in doctor.device_checks(wide.bundle, wide.folder)]
    monkeypatch.setenv("STATE", "offline")
    assert attached() is None


def test_versions_that_differ_fail(wide: Lowered, tmp_path: Path) -> None:
    contexts = contexts_of(wide, "SM8650", "SM8750")
    contexts["SM8750"]["qairt"] = "v2.52.0"
    passed, text = told(wide, tmp_path / "mixed", contexts)
    assert not passed
    assert "2 versions of QAIRT" in text


@pytest.mark.parametrize(
    ("version", "libc", "passed"),
    [(PINNED, ("glibc", "2.36"), True), (PINNED, ("glibc", "2.31"), False), ("9.9.9", ("glibc", "2.36"), False)],
)
def test_the_compiler_here(version: str, libc: tuple[str, str], passed: bool) -> None:
    assert doctor._compiler(version, libc).passed is passed
