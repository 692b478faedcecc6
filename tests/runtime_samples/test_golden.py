"""The golden vectors are what the host's sampler makes, and their bundles and reports are as the schemas say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scripts.golden import CASES, CORRECTED, write_case, write_damaged
from scripts.golden_damaged import FOR_ALL, FOR_THE_HOST, write_damaged_bundles

from dq_toolchain.toolchain.bundle import Bundle
from dq_toolchain.toolchain.correction import Correction
from dq_toolchain.toolchain.doctor import examine
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.report import load_report
from dq_toolchain.toolchain.schemas import first_fault
from dq_toolchain.toolchain.verdict import validate
from tests.runtime_samples import damaged

GOLDEN = Path(__file__).parents[2] / "runtime_samples" / "golden"


@pytest.mark.parametrize("name", CASES)
def test_they_are_what_the_host_makes(name: str, tmp_path: Path) -> None:
    write_case(CASES[name], tmp_path)
    for file in ("replay.safetensors", "bundle/reference.safetensors", "expected/report.safetensors"):
        ours, committed = load_file(tmp_path / file), load_file(GOLDEN / name / file)
        assert set(ours) == set(committed)
        for key, tensor in ours.items():
            # other processors sum in another order: by roundings of the largest values, which the smallest then carry too
            size = max(1.0, float(committed[key].nan_to_num(posinf=0.0, neginf=0.0).abs().max()))
            torch.testing.assert_close(tensor, committed[key], rtol=1e-5, atol=1e-6 * size, equal_nan=True)
    ours, committed = (json.loads((folder / "expected" / "report.json").read_text()) for folder in (tmp_path, GOLDEN / name))
    for mine, theirs in zip(_figures(ours), _figures(committed), strict=True):
        assert mine == (None if theirs is None else pytest.approx(theirs, 1e-5))


def _figures(report: Any) -> list[float | None]:
    errors = [row[key] for row in report["per_step"] for key in ("error_fp32", "error_simulation")]
    return [*errors, *report["final"]["psnr"]]


@pytest.mark.parametrize("name", CASES)
def test_they_are_whole(name: str) -> None:
    folder = GOLDEN / name
    checks = [check for check in examine(folder / "bundle") if not check.passed]
    assert not checks
    bundle = Bundle.load(folder / "bundle")
    assert first_fault("bundle", json.loads((folder / "bundle" / "bundle.json").read_text())) is None
    assert first_fault("report", json.loads((folder / "expected" / "report.json").read_text())) is None
    calls = bundle.table.calls * bundle.reference(folder / "bundle").seeds * 2 * (2 if bundle.guidance != 1.0 else 1)
    replay = load_file(folder / "replay.safetensors")
    assert {key: len(tensor) for key, tensor in replay.items()} == {"inputs": calls, "outputs": calls, "timesteps": calls}
    assert load_report(folder / "expected").latents.shape[0] == bundle.table.calls + 1


def test_overflow_is_judged_and_named() -> None:
    verdict = validate(GOLDEN / "overflow" / "expected", GOLDEN / "overflow" / "bundle")
    assert not verdict.passed
    assert not verdict.conformance_passed
    assert verdict.first_step is not None
    assert any(value is None for value in verdict.final["psnr"])


def test_damaged_files_are_what_is_written(tmp_path: Path) -> None:
    write_damaged(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in (GOLDEN / "damaged").iterdir()}


@pytest.mark.parametrize("kind", [FOR_ALL, FOR_THE_HOST])
def test_damaged_bundles_are_what_is_written(kind: str, tmp_path: Path) -> None:
    write_damaged_bundles(GOLDEN, tmp_path)

    def content(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert content(tmp_path / kind) == content(GOLDEN / kind)


@pytest.mark.parametrize("name", damaged.listed(FOR_ALL))
def test_what_no_device_runs_is_refused_by_host_and_doctor(name: str, tmp_path: Path) -> None:
    """By the same text, and for its damage: never for the seal, nor for a hash that was not made good."""
    bundle = damaged.laid_out(FOR_ALL, name, tmp_path)
    with pytest.raises(ArtifactError) as caught:
        load_whole(bundle)
    said = str(caught.value).replace(str(tmp_path), "")
    assert len(said) < 1000
    assert "\x1b" not in said
    assert "\n" not in said
    assert ("changed after" in said) == (name == "ddim-guided/hash-of-another-file")
    assert ("correction" in said) == ("correction" in name)
    assert not doctor_passes(bundle)


@pytest.mark.parametrize("name", damaged.listed(FOR_THE_HOST))
def test_what_only_the_host_reads_is_refused_by_doctor(name: str, tmp_path: Path) -> None:
    assert not doctor_passes(damaged.laid_out(FOR_THE_HOST, name, tmp_path))


@pytest.mark.parametrize("name", damaged.ON_DISK)
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(GOLDEN / "ddim-guided" / "bundle", tmp_path / "bundle"))
    damaged.ON_DISK[name](bundle)
    with pytest.raises(ArtifactError):
        load_whole(bundle)
    assert not doctor_passes(bundle)


def load_whole(bundle: Path) -> None:
    """What `run` reads before it samples."""
    loaded = Bundle.load(bundle)
    loaded.reference(bundle)
    loaded.ranges(bundle)


def doctor_passes(bundle: Path) -> bool:
    try:
        return all(check.passed for check in examine(bundle))
    except ArtifactError:
        return False


def test_every_part_of_the_golden_correction_shows() -> None:
    """A program that leaves one part out is not within the 1e-6 that golden vectors allow."""
    correction = Bundle.load(GOLDEN / CORRECTED / "bundle").table.correction
    assert correction is not None
    identity = Correction.identity(correction.calls, correction.channels)
    for part in ("input_shift", "output_scale", "output_shift"):
        rows, neutral = getattr(correction, part), getattr(identity, part)
        numbers = [value for row in rows for value in row]
        assert len(set(numbers)) == len(numbers)
        assert min(abs(a - b) for a, b in zip(numbers, [v for row in neutral for v in row], strict=True)) >= 0.01
