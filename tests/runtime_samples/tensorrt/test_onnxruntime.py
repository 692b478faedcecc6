"""A real run: the program executes lowered bundles with ONNX Runtime, and its report is judged as any other."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.toolchain.verdict.judge import validate
from tests.backends.tensorrt.conftest import Lowered, made
from tests.runtime_samples.tensorrt.programs import assert_close, assert_refused, dq_run, read_report


@pytest.mark.parametrize("options", [(), ("--reload",)])
def test_equals_the_run_of_the_toolchain(
    options: tuple[str, ...], lowered: Lowered, host_report: Path, tmp_path: Path
) -> None:
    done = dq_run("--bundle", lowered.folder, "--report", tmp_path, "--backend", "onnxruntime", *options)
    assert done.returncode == 0, done.stderr
    (got, tensors), (want, expected) = read_report(tmp_path), read_report(host_report)
    for name in ("latents", "outputs_at_simulation"):
        np.testing.assert_array_equal(tensors[name], expected[name])
    for row, wanted in zip(got["per_step"], want["per_step"], strict=True):
        assert_close(list(row.values()), list(wanted.values()))
    assert_close(got["final"]["psnr"], want["final"]["psnr"])
    assert got["runtime"]["name"] == "ONNX Runtime (Python)"
    assert got["compute_unit"] == "CPU, not TensorRT"
    assert got["load_ms"] > 0
    verdict = validate(tmp_path)
    assert not verdict.failed, [check for check in verdict.checks if not check.passed]


def test_step_vectors_in_the_place_of_the_timestep(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    lowered = made("step-vectors", tmp_path_factory)
    run_bundle(backends.load("tensorrt"), lowered.bundle, lowered.folder, tmp_path / "host", seeds=1)
    done = dq_run("--bundle", lowered.folder, "--report", tmp_path / "own", "--backend", "onnxruntime", "--seeds", 1)
    assert done.returncode == 0, done.stderr
    (_, got), (_, want) = read_report(tmp_path / "own"), read_report(tmp_path / "host")
    for name in ("latents", "outputs_at_simulation"):
        np.testing.assert_array_equal(got[name], want[name])


@pytest.mark.slow
def test_text_states(text_states: Lowered, tmp_path: Path) -> None:
    done = dq_run("--bundle", text_states.folder, "--report", tmp_path, "--backend", "onnxruntime", "--seeds", 1)
    assert done.returncode == 0, done.stderr
    verdict = validate(tmp_path)
    assert all(check.outcome != "fail" for check in (*verdict.fidelity, *verdict.claims))


def test_a_graph_that_does_not_load(lowered: Lowered, tmp_path: Path) -> None:
    shutil.copytree(lowered.folder, tmp_path / "bundle")
    bundle = tmp_path / "bundle"
    (bundle / "model" / f"{lowered.bundle.methods[0]}.onnx").write_bytes(b"no graph")
    assert_refused(
        dq_run("--bundle", bundle, "--report", tmp_path / "r", "--backend", "onnxruntime"), "SHA-256 differs"
    )


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="needs a machine without TensorRT")
def test_without_tensorrt(lowered: Lowered, tmp_path: Path) -> None:
    done = dq_run("--bundle", lowered.folder, "--report", tmp_path)
    assert_refused(done, "Python does not find tensorrt", "--backend onnxruntime")
    assert list(tmp_path.iterdir()) == []
