"""What the Swift packages share, compiled and run on Linux: recordings replayed give the reports of the host."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.toolchain.formats.report import JSON, TENSORS, DeviceReport, load_report
from tests.runtime_samples import damaged
from tests.runtime_samples.cpp_core.conftest import SAMPLERS
from tests.runtime_samples.swift import ROOT, SLOW_AND_ONLY_WITH_SWIFT, inside, packages_tested

GOLDEN = ROOT / "runtime_samples" / "golden"
CASES = damaged.recorded()
TESTED = 4  # swift_core, and three packages with stand-ins

pytestmark = SLOW_AND_ONLY_WITH_SWIFT


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    packages_tested()


def test_every_package_ran_its_tests() -> None:
    passed = re.findall(r"'All tests' passed.*\n\s*Executed (\d+) tests, with 0 failures", packages_tested())
    counts = [int(count) for count in passed]
    assert len(counts) == TESTED
    assert min(counts) > 0


def _replay(case: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Replays a case whose files are copied into ``folder``; the report is ``folder``/CASE/report."""
    home = folder / case
    if not home.exists():
        shutil.copytree(GOLDEN / case, home)
    return inside(
        [
            "swift_core/.build/debug/dq-replay",
            "--bundle",
            str(home / "bundle"),
            "--report",
            str(home / "report"),
            "--replay",
            str(home / "replay.safetensors"),
            *options,
        ],
        folder,
    )


@pytest.mark.parametrize("case", [*CASES, *SAMPLERS, *damaged.OTHER_VECTORS])
def test_report_is_that_of_the_host(case: str, tmp_path: Path) -> None:
    done = _replay(case, tmp_path, *(SAMPLERS | damaged.OTHER_VECTORS).get(case, ()))
    assert done.returncode == 0, done.stderr
    got = load_report(tmp_path / case / "report")  # schema, hashes, shapes
    _assert_same(got, load_report(GOLDEN / case / "expected"))
    assert got.bundle_folder.resolve() == (tmp_path / case / "bundle").resolve()
    assert got.data["peak_memory_bytes"] > 0
    assert got.data["versions"]["system"]


def _assert_same(got: DeviceReport, wanted: DeviceReport) -> None:
    assert got.data["target"] == wanted.data["target"]
    assert got.data["bundle_sha256"] == wanted.data["bundle_sha256"]
    assert _figures(got.data) == pytest.approx(_figures(wanted.data), rel=1e-6, abs=0, nan_ok=True)
    for one, other in ((got.latents, wanted.latents), (got.outputs_at_simulation, wanted.outputs_at_simulation)):
        assert one is not None
        assert other is not None
        assert one.shape == other.shape
        finite = other.isfinite()
        assert torch.equal(one.isfinite(), finite)
        assert torch.equal(one[~finite].nan_to_num(), other[~finite].nan_to_num())
        assert (one - other)[finite].norm() <= 1e-6 * other[finite].norm()


def _figures(report: Any) -> list[float]:
    steps = [row[key] for row in report["per_step"] for key in ("error_fp32", "error_simulation")]
    return [float("nan") if value is None else value for value in [*steps, *report["final"]["psnr"]]]


def test_first_seeds_without_the_second_half(tmp_path: Path) -> None:
    done = _replay("euler-latents", tmp_path, "--seeds", "2", "--teacher-forced", "off")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "euler-latents" / "report" / JSON).read_text())
    wanted = json.loads((GOLDEN / "euler-latents" / "expected" / JSON).read_text())
    assert report["final"]["psnr"] == pytest.approx(wanted["final"]["psnr"][:2], rel=1e-6)


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    assert _replay("dpm-history", tmp_path).returncode == 0
    home = tmp_path / "dpm-history"
    before = (home / "report" / JSON).read_bytes()
    too_many = _replay("dpm-history", tmp_path, "--seeds", "99")
    with (home / "bundle" / "reference.safetensors").open("r+b") as stream:
        stream.truncate(1000)
    truncated = _replay("dpm-history", tmp_path)
    for done, text in ((too_many, "must be 1-2"), (truncated, "reference.safetensors was changed")):
        assert done.returncode == 2
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    assert (home / "report" / JSON).read_bytes() == before
    assert sorted(path.name for path in (home / "report").iterdir()) == [JSON, TENSORS]
