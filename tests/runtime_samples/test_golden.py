"""The golden vectors are what the host's sampler makes, and their bundles and reports are as the schemas say."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scripts.golden.damaged_bundles import FOR_ALL, FOR_THE_HOST, write_damaged_bundles
from scripts.golden.vectors import CASES, CORRECTED, OF_SAMPLERS, SAMPLERS, write_case, write_damaged

from dq_toolchain.backends.common import sampling
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.report import load_report
from dq_toolchain.toolchain.formats.schemas import first_fault
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.verdict.doctor import examine
from dq_toolchain.toolchain.verdict.judge import validate
from tests.runtime_samples import damaged

GOLDEN = Path(__file__).parents[2] / "runtime_samples" / "golden"


LATENTS, OUTPUTS, FIGURES = 1e-6, 3e-6, 1e-5
"""Of a tensor's largest value, of each figure: processors sum in another order, by roundings of the largest values, and
guidance multiplies those of the outputs. Measured on a processor that differs from the committed ones: latents 2.8e-7,
outputs 1.1e-6, figures 9.6e-7. The faults below move the latents by 2.0e-6 and more."""


@pytest.mark.parametrize("name", CASES)
def test_they_are_what_the_host_makes(name: str, tmp_path: Path) -> None:
    write_case(CASES[name], tmp_path)
    assert _beyond(tmp_path, GOLDEN / name) == {}


@pytest.mark.parametrize("name", OF_SAMPLERS)
def test_those_of_other_samplers_are_too(name: str, tmp_path: Path) -> None:
    case, folder = OF_SAMPLERS[name], GOLDEN / SAMPLERS / name
    write_case(case, tmp_path)
    assert _beyond(tmp_path, folder) == {}
    assert all(check.passed for check in examine(folder / "bundle"))
    report = load_report(folder / "expected")
    assert (report.data["steps"], report.data["guidance"]) == case.chosen
    assert report.latents.shape[0] == report.data["steps"] + 1


FAULTS = {
    "latents, by 1e-5": ("a", 1, 0, 1 + 1e-5),  # 9.3e-6 and more
    "output, by 1e-5": ("b", 0, 0, 1 + 1e-5),  # 2.0e-6 and more
    "history, left out where it is last": ("b", 3, 1, 0.0),  # 2.6e-3
}
"""A coefficient of the table: which, call, how far back, and the factor that it is changed by."""


@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, fault) for name in CASES for fault in FAULTS if "history" not in fault or "history" in name],
)
def test_a_small_fault_of_the_sampler_is_found(
    name: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which, k, back, factor = FAULTS[fault]

    def faulty(table: SamplerTable, *arguments: Any, **keywords: Any) -> torch.Tensor:
        rows = [list(row) for row in getattr(table, which)]
        rows[k][back] *= factor
        changed: dict[str, Any] = {which: tuple(map(tuple, rows))}
        return rollout(replace(table, **changed), *arguments, **keywords)

    monkeypatch.setattr(sampling, "rollout", faulty)
    write_case(CASES[name], tmp_path)
    assert "latents" in _beyond(tmp_path, GOLDEN / name)


def _beyond(ours: Path, committed: Path) -> dict[str, float]:
    """Tensors and figures that are further from the committed ones than the limits above, and how far."""
    found: dict[str, float] = {}
    for file in ("replay.safetensors", "bundle/reference.safetensors", "expected/report.safetensors"):
        tensors, wanted = load_file(ours / file), load_file(committed / file)
        assert set(tensors) == set(wanted)
        for key, tensor in tensors.items():
            distance = _distance(tensor, wanted[key])
            if distance > (OUTPUTS if "outputs" in key else LATENTS):
                found[key] = distance
    mine, theirs = (
        _figures(json.loads((folder / "expected" / "report.json").read_text())) for folder in (ours, committed)
    )
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        if a != (None if b is None else pytest.approx(b, FIGURES)):
            found[f"figure {i}"] = math.inf if a is None or b is None else abs(a - b)
    return found


def _distance(ours: torch.Tensor, committed: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value or of 1; infinite where NaN or infinity is not in both."""
    assert (ours.shape, ours.dtype) == (committed.shape, committed.dtype)
    finite = committed.isfinite()
    if not torch.equal(ours.isfinite(), finite) or not torch.equal(
        ours[~finite].nan_to_num(), committed[~finite].nan_to_num()
    ):
        return math.inf
    a, b = ours[finite].double(), committed[finite].double()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1.0)) if len(b) else 0.0


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
    assert {key: len(tensor) for key, tensor in replay.items()} == {
        "inputs": calls,
        "outputs": calls,
        "step_vectors" if name == damaged.VECTORS else "timesteps": calls,
    }
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
        path.name: path.read_bytes() for path in (GOLDEN / "damaged").iterdir()
    }


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
    loaded.step_vectors(bundle)


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
