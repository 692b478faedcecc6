"""dq-run with the real runtime: bit for bit what the Python runtime gives, and a report that `validate` passes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import dq_toolchain as dq
from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.toolchain.formats.report import load_report
from dq_toolchain.toolchain.verdict.judge import validate
from tests import tiny
from tests.backends.executorch.conftest import Lowered
from tests.backends.test_samplings import with_others
from tests.runtime_samples.cpp_core.conftest import GOLDEN, assert_refused, run, seal_files


@pytest.fixture(params=["small", pytest.param("static", marks=pytest.mark.slow)])
def bundle(request: pytest.FixtureRequest) -> Lowered:
    """Two step groups: one method with a row of ranges each, guidance and a correction; or a method each."""
    made: Lowered = request.getfixturevalue(request.param)
    return made


def test_answers_are_those_of_the_python_runtime(bundle: Lowered, dq_run: Path, tmp_path: Path) -> None:
    python = run_bundle(backends.load("executorch"), bundle[3], bundle[4], tmp_path / "python")
    done = run(dq_run, "--bundle", bundle[4], "--report", tmp_path / "cpp")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    got, wanted = load_report(tmp_path / "cpp"), load_report(python)
    got.check_against(bundle[2])
    assert torch.equal(got.latents, wanted.latents)
    assert got.outputs_at_simulation is not None
    assert wanted.outputs_at_simulation is not None
    assert torch.equal(got.outputs_at_simulation, wanted.outputs_at_simulation)
    assert not validate(tmp_path / "cpp").failed
    assert got.data["runtime"]["name"] == "ExecuTorch (C++)"
    assert got.data["runtime"]["version"] == wanted.data["runtime"]["version"]
    assert all(milliseconds > 0 for milliseconds in got.data["step_ms"])
    assert 0 < got.data["peak_memory_bytes"] < 2**30


class _Rows(nn.Module):
    """(B, 2, 8) -> the same: samples that are no pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Conv1d(2, 8, 3, padding=1), nn.Conv1d(8, 2, 3, padding=1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.out(nn.functional.silu(self.into(sample) + timestep[:, None, None] / 1000))
        return x


def test_samples_of_channels_and_time(dq_run: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    calibration = dq.calibrate(
        _Rows(),
        scheduler=tiny.scheduler(),
        sample_shape=(2, 8),
        out=tmp_path,
        recipe={"reference": {"seeds": 4}},
        steps=3,
        samples=4,
        batch=2,
        warmup=0,
        rounding="nearest",
        device="cpu",
    )
    bundle = dq.export(calibration, "executorch")
    done = run(dq_run, "--bundle", bundle.folder, "--report", tmp_path / "cpp")
    assert done.returncode == 0, done.stderr
    assert torch.equal(load_report(tmp_path / "cpp").latents, load_report(dq.run(bundle).path).latents)
    assert not validate(tmp_path / "cpp").failed


def test_step_vectors_in_the_place_of_the_timestep(vectors: Lowered, dq_run: Path, tmp_path: Path) -> None:
    python = run_bundle(backends.load("executorch"), vectors[3], vectors[4], tmp_path / "python")
    done = run(dq_run, "--bundle", vectors[4], "--report", tmp_path / "cpp")
    assert done.returncode == 0, done.stderr
    got, wanted = load_report(tmp_path / "cpp"), load_report(python)
    assert torch.equal(got.latents, wanted.latents)
    assert not validate(tmp_path / "cpp").failed


def test_another_step_count(dq_run: Path, tmp_path: Path) -> None:
    """The same answers as of the Python runtime at that count, judged by that count's reference."""
    artifact, reference, others = with_others()
    artifact.save(tmp_path / "calibration", reference, others)
    backend, out = backends.load("executorch"), tmp_path / "bundle"
    settings = backends.settings("executorch")()
    bundle = backend.lower(artifact, tmp_path / "calibration", out, settings, lambda _: None)
    python = run_bundle(backend, bundle, out, tmp_path / "python", steps=2)
    done = run(dq_run, "--bundle", out, "--report", tmp_path / "cpp", "--steps", "2")
    assert done.returncode == 0, done.stderr
    got, wanted = load_report(tmp_path / "cpp"), load_report(python)
    assert torch.equal(got.latents, wanted.latents)
    assert (got.data["steps"], got.data["guidance"]) == (2, 2.0)
    assert not validate(tmp_path / "cpp").failed


def test_a_bundle_of_an_earlier_version(dq_run: Path, tmp_path: Path) -> None:
    """Lowered by executorch 1.4.1; the program is linked with a later runtime."""
    folder = Path(__file__).parents[2] / "data" / "bundles_0.1" / "executorch"
    done = run(dq_run, "--bundle", folder, "--report", tmp_path)
    assert done.returncode == 0, done.stderr
    assert validate(tmp_path, folder).passed


def test_a_method_for_each_step_group(bundle: Lowered, dq_run: Path, tmp_path: Path) -> None:
    """The same method under two numbers, each loaded for itself, leaves every answer as it was."""
    folder = Path(shutil.copytree(bundle[4], tmp_path / "bundle"))
    data = json.loads((folder / "bundle.json").read_text())
    if len(data["methods"]) != 1:
        pytest.skip("has a method for each already")
    (folder / "bundle.json").write_text(json.dumps(data | {"methods": ["forward", "forward"]}))
    for name, source in (("one", bundle[4]), ("two", folder)):
        assert run(dq_run, "--bundle", source, "--report", tmp_path / name).returncode == 0
    one, two = (load_report(tmp_path / name) for name in ("one", "two"))
    assert torch.equal(one.latents, two.latents)


def test_the_own_half_alone_is_judged_by_fidelity(bundle: Lowered, dq_run: Path, tmp_path: Path) -> None:
    arguments = ("--seeds", "1", "--teacher-forced", "off")
    assert run(dq_run, "--bundle", bundle[4], "--report", tmp_path, *arguments).returncode == 0
    report = load_report(tmp_path)
    assert report.latents.shape[1] == 1
    assert report.outputs_at_simulation is None
    verdict = validate(tmp_path)
    assert not [check for check in verdict.fidelity if check.outcome == "fail"]
    assert verdict.outcome == "fail"  # conformance was not measured


def test_bundles_of_another_target_are_one_line(dq_run: Path, tmp_path: Path) -> None:
    done = run(dq_run, "--bundle", GOLDEN / "ddim-noise" / "bundle", "--report", tmp_path / "report")
    assert_refused(done, "the bundle is for target golden, this program runs only --target executorch")
    assert not (tmp_path / "report").exists()


def test_programs_that_do_not_load_are_one_line(bundle: Lowered, dq_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle[4], tmp_path / "bundle"))
    data = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(data | {"methods": ["other"]}))
    assert_refused(run(dq_run, "--bundle", folder, "--report", tmp_path / "report"), "cannot find method other")
    (folder / "bundle.json").write_text(json.dumps(data))
    program = folder / "model.pte"
    program.write_bytes(program.read_bytes()[:5000])
    seal_files(folder)
    assert_refused(
        run(dq_run, "--bundle", folder, "--report", tmp_path / "report"), "ExecuTorch cannot load the program"
    )
    program.write_bytes(b"")
    seal_files(folder)
    assert_refused(run(dq_run, "--bundle", folder, "--report", tmp_path / "report"), "cannot read")
