"""``run``: the sampler on ExecuTorch, from the bundle alone, into a report that ``validate`` accepts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.backends.programs import program_checks
from dq_toolchain.toolchain.disk.files import read_tensors, write_tensors
from dq_toolchain.toolchain.errors import ArtifactError, BackendError
from dq_toolchain.toolchain.formats.bundle import RANGES, Bundle
from dq_toolchain.toolchain.formats.report import load_report
from dq_toolchain.toolchain.verdict.doctor import examine
from dq_toolchain.toolchain.verdict.judge import validate
from tests.backends.executorch.conftest import Lowered


def _run(lowered: Lowered, out: Path, seeds: int | None = None, threads: int | None = None) -> Path:
    return run_bundle(backends.load("executorch"), lowered[3], lowered[4], out, seeds=seeds, threads=threads)


@pytest.mark.parametrize("fixture", ["small", "static"])
def test_report_is_whole_and_passes(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    lowered = request.getfixturevalue(fixture)
    calls: list[tuple[int, int]] = []
    path = run_bundle(
        backends.load("executorch"),
        lowered[3],
        lowered[4],
        tmp_path,
        threads=1,
        progress=lambda *done: calls.append(done),
    )
    report, reference = load_report(path), lowered[2]
    report.check_against(reference)
    assert report.bundle_folder.resolve() == lowered[4].resolve()
    assert torch.equal(report.latents[0], reference.start)
    total = 2 * reference.calls * reference.seeds
    assert calls == [(k, total) for k in range(1, total + 1)]
    assert all(milliseconds > 0 for milliseconds in report.data["step_ms"])
    assert report.data["runtime"]["name"] == "ExecuTorch"
    assert not validate(path).failed


def test_runs_are_deterministic_and_seeds_independent(small: Lowered, tmp_path: Path) -> None:
    """Batch 1 throughout: the first seed alone gives the same latents as among the others."""
    all_seeds = load_report(_run(small, tmp_path / "all"))
    one_seed = load_report(_run(small, tmp_path / "one", seeds=1))
    assert one_seed.latents.shape[1] == 1
    assert torch.equal(one_seed.latents, all_seeds.latents[:, :1])


def test_exchanged_step_groups_are_caught(small: Lowered, tmp_path: Path) -> None:
    """Planted damage in the ranges, with hashes made good: the program runs, the verdict is bad."""
    folder = tmp_path / "bundle"
    shutil.copytree(small[4], folder)
    ranges = read_tensors(folder / RANGES, "")["ranges"]
    write_tensors(folder / RANGES, {"ranges": ranges.flip(0) * 16})
    path = run_bundle(backends.load("executorch"), small[3], folder, folder)
    damaged = load_report(path)
    good = load_report(_run(small, tmp_path / "good"))

    def error(latents: torch.Tensor) -> float:
        return float((latents[-1] - small[2].fp32_latents[-1]).norm())

    assert error(damaged.latents) > 1.2 * error(good.latents)


@pytest.mark.parametrize(
    ("seeds", "threads", "text"),
    [
        (0, None, "seeds must be 1-3"),
        (4, None, "seeds must be 1-3"),
        (None, 0, "threads must be 1-256"),
    ],
)
def test_bad_arguments_are_refused(
    seeds: int | None, threads: int | None, text: str, small: Lowered, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match=text):
        _run(small, tmp_path, seeds, threads)
    assert not list(tmp_path.iterdir())


def test_damaged_bundles_are_refused(small: Lowered, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(small[4], folder)
    write_tensors(folder / RANGES, {"ranges": torch.zeros(2, 3)})
    with pytest.raises(ArtifactError, match=r"ranges.safetensors was changed"):
        Bundle.load(folder)
    with pytest.raises(ArtifactError, match="must hold 'ranges' of shape"):
        run_bundle(backends.load("executorch"), small[3], folder, tmp_path)
    (folder / "model.pte").write_bytes(b"not a program")
    with pytest.raises(BackendError, match="cannot load the program"):
        run_bundle(backends.load("executorch"), small[3], folder, tmp_path)


def test_a_bundle_of_another_target_is_refused(small: Lowered, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(small[4], folder)
    data = json.loads((folder / "bundle.json").read_text())
    data["target"] = "coreml"
    (folder / "bundle.json").write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        Bundle.load(folder)


@pytest.mark.parametrize("fixture", ["small", "static"])
def test_doctor_finds_the_methods_in_the_program(fixture: str, request: pytest.FixtureRequest) -> None:
    _, _, _, bundle, folder = request.getfixturevalue(fixture)
    assert not [check for check in examine(folder, program_checks) if not check.passed]
    wrong = replace(bundle, methods=tuple("nope" for _ in bundle.methods))
    assert [check.detail for check in program_checks(wrong, folder) if not check.passed] == [
        f"model.pte holds no method 'nope', it has {', '.join(sorted(set(bundle.methods)))}"
    ]
