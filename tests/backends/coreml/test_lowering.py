"""From artifact to bundle to report: the whole target, and what it refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dq_toolchain import backends
from dq_toolchain.backends import base
from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.common.qdq import export
from dq_toolchain.backends.common.qdq.tags import tag
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.backends.coreml import lowering
from dq_toolchain.backends.coreml.graph import convert
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.backends.coreml.vendor import coremltools
from dq_toolchain.toolchain.errors import BackendError, ToolchainError
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.report import load_report
from dq_toolchain.toolchain.verdict.judge import validate
from tests import tiny, tiny_artifacts
from tests.backends.coreml.conftest import lower


@pytest.mark.parametrize("seeds", [1, pytest.param(None, marks=pytest.mark.slow)])
def test_bundle_runs_here_and_passes(seeds: int | None, bundle: tuple[Bundle, Path], tmp_path: Path) -> None:
    path = run_bundle(backends.load("coreml"), *bundle, tmp_path, seeds=seeds)
    report = load_report(path)
    assert report.data["runtime"]["name"] == "dq-toolchain interpreter of ML Programs"
    assert "not Core ML" in report.data["compute_unit"]
    verdict = validate(path)
    assert not verdict.failed, verdict.to_json()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "form"),
    [
        ({"step_groups_as": "input", "ios": 17}, "runtime-scales"),
        ({"quantize_outputs": True}, "functions"),
        ({"chunks": 2, "layout": "neural-engine"}, "functions"),
    ],
)
def test_every_option_runs_here_and_passes(settings: dict[str, Any], form: str, tmp_path: Path) -> None:
    artifact, unet = tiny_artifacts.lively_artifact()
    bundle, folder = lower(tmp_path, replace(artifact, guidance=2.0), unet, **settings)
    assert bundle.form == form
    report = run_bundle(backends.load("coreml"), bundle, folder, folder)
    verdict = validate(report)
    assert not verdict.failed, verdict.to_json()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"ios": 17}, "has one function, step groups need one each; add --step-groups-as input"),
        ({"ios": 17, "step_groups_as": "input", "lut": True}, "tables of integers need iOS 18 or 26, got 17"),
        ({"step_groups_as": "input", "quantize_outputs": True}, "reach the inputs of layers only"),
        ({"lut": True}, "tables are for weights of 4 bits and fewer, this artifact has none"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=text):
        lower(tmp_path, *tiny_artifacts.lively_artifact(), **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]


def test_run_time_scales_need_symmetric_ranges(tmp_path: Path) -> None:
    with pytest.raises(
        BackendError, match=r"run-time scales need scheme 'symmetric', got a zero_point at site \S+:input"
    ):
        lower(tmp_path, *tiny_artifacts.lively_artifact(scheme="affine"), step_groups_as="input")


def test_neural_engine_layout_refuses_integers_in_attention(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"holds no integers at attention products, got site .*:q"):
        lower(tmp_path, *tiny_artifacts.lively_artifact(attention=True), layout="neural-engine")


def test_bundle_is_self_contained_and_sealed(bundle: tuple[Bundle, Path], tmp_path: Path) -> None:
    made, folder = bundle
    assert made.methods == ("steps_g0", "steps_g1")
    assert {name.split("/")[0] for name in made.files} == {"model.mlpackage", "reference.safetensors"}
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = next(copy.rglob("weight.bin"))
    data = bytearray(weights.read_bytes())
    data[200] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ToolchainError, match=r"weight\.bin was changed"):
        Bundle.load(copy)


def _converted_before(monkeypatch: pytest.MonkeyPatch, bundle: tuple[Bundle, Path]) -> None:
    """Conversion takes the package that was converted once; all else is done anew."""

    def copied(unet: nn.Module, call: object, section: object, path: Path, ranges: object) -> None:
        shutil.copytree(bundle[1] / "model.mlpackage", path)

    monkeypatch.setattr(lowering, "convert", copied)
    monkeypatch.setattr(lowering, "split_into_functions", lambda *_: bundle[0].methods)


def test_lowering_again_replaces_the_package(
    bundle: tuple[Bundle, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _converted_before(monkeypatch, bundle)
    artifact, unet = tiny_artifacts.lively_artifact()
    (tmp_path / "coreml" / "model.mlpackage").mkdir(parents=True)
    (tmp_path / "coreml" / "model.mlpackage" / "old").write_text("old")
    (tmp_path / "coreml" / "notes.txt").write_text("mine")
    made, folder = lower(tmp_path, replace(artifact, guidance=2.0), unet)
    assert not (folder / "model.mlpackage" / "old").exists()
    assert (folder / "notes.txt").read_text() == "mine"
    assert made.methods == bundle[0].methods


@pytest.mark.parametrize("step", ["audit", "smoke", "merge"])
def test_failure_anywhere_leaves_no_bundle(
    step: str, bundle: tuple[Bundle, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BackendError("planted")

    _converted_before(monkeypatch, bundle)
    if step == "merge":
        monkeypatch.setattr(lowering, "split_into_functions", fail)
    monkeypatch.setattr(export if step == "smoke" else lowering, step, fail)
    artifact, unet = tiny_artifacts.lively_artifact()
    with pytest.raises(BackendError, match="planted"):
        lower(tmp_path, artifact, unet)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]


def test_wrong_pass_of_coremltools_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """coremltools' own pipeline merges DQ(s1) -> reshape -> Q(s2) into a reshape of integers: the interpreter tells."""
    from dq_toolchain.backends.coreml.graph.operators import OPERATORS

    quantized = OPERATORS.quantized
    from dq_toolchain.backends.coreml.interpreter.program import load

    class Twice(nn.Module):
        def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
            first = quantized(sample, tag(0)).reshape(1, 1, -1)
            return (quantized(first * 1.0, tag(900)) + 0 * timestep.reshape(1, 1, 1),)

    sample = tiny.noise(1)
    inputs = {"sample": sample, "timestep": torch.tensor([1.0])}
    wanted = Twice()(**inputs)[0]

    def error(name: str) -> float:
        call = Call(sample, inputs["timestep"], {})
        convert.convert(Twice(), call, Settings(precision="fp32"), tmp_path / f"{name}.mlpackage")
        out = load(tmp_path / f"{name}.mlpackage")["main"](inputs)["output"]
        return float((out.reshape(wanted.shape) - wanted).abs().max())

    assert error("ours") < 1e-6
    monkeypatch.setattr(convert, "WRONG_PASSES", ())
    assert error("theirs") > 0.1


def test_pass_names_exist() -> None:
    """A pass that coremltools renames would no longer be removed."""
    assert set(convert.WRONG_PASSES) <= set(coremltools().PassPipeline.DEFAULT.passes)


def test_unsupported_bits_are_refused_by_name(tmp_path: Path) -> None:
    artifact, unet = tiny_artifacts.lively_artifact()
    sites = (replace(artifact.sites[0], bits=6), *artifact.sites[1:])
    with pytest.raises(
        BackendError, match="activation bits must be 8 for target 'coreml', got 6 at site conv_in:input"
    ):
        lower(tmp_path, replace(artifact, sites=sites), unet)


def test_arguments_that_core_ml_does_not_take(bundle: tuple[Bundle, Path], tmp_path: Path) -> None:
    def run(seeds: int | None, threads: int | None) -> Any:
        return run_bundle(backends.load("coreml"), *bundle, tmp_path, seeds=seeds, threads=threads)

    with pytest.raises(BackendError, match="seeds must be 1-3"):
        run(9, None)
    with pytest.raises(BackendError, match="threads cannot be set"):
        run(None, 2)


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(base, "version", missing)
    with pytest.raises(BackendError, match=r"pip install 'dq-toolchain\[coreml\]'"):
        backends.load("coreml")
