"""What doctor says of contexts and of Qualcomm's library."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.backends.programs import program_checks
from dq_toolchain.backends.qnn import doctor
from dq_toolchain.backends.qnn.vendor import PINNED
from tests.backends.qnn.conftest import Lowered


def contexts_of(lowered: Lowered, *chips: str) -> dict[str, Any]:
    graphs = [f"{method}_ctx.onnx" for method in lowered.bundle.methods]
    return {chip: {"graphs": graphs, "qairt": "v2.51.0"} for chip in chips}


def told(lowered: Lowered, folder: Path, contexts: dict[str, Any], left_out: str = "") -> tuple[bool, str]:
    """Whether doctor.contexts passes for a bundle with these contexts, and what it says."""
    folder.mkdir()
    (folder / "placements.json").write_text(json.dumps({"contexts": contexts}))
    names = [f"{chip}/{name}" for chip in contexts for name in ("steps.bin", *contexts[chip]["graphs"])]
    files = {**lowered.bundle.files, **{name: "0" * 64 for name in names if name != left_out}}
    checks = doctor.device_checks(dataclasses.replace(lowered.bundle, files=files), folder)
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
