"""The Python sampler replays golden vectors and writes the host's own figures."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.runtime_samples import damaged
from tests.runtime_samples.cpp_core.conftest import SAMPLERS
from tests.runtime_samples.cpp_core.test_golden import DAMAGE
from tests.runtime_samples.tensorrt.programs import (
    CASES,
    GOLDEN,
    PYTHON,
    assert_golden,
    assert_refused,
    dq_run,
    module,
    read_report,
)


def replay(case: str, report: Path, *options: object) -> subprocess.CompletedProcess[str]:
    folder = GOLDEN / case
    return dq_run(
        "--bundle", folder / "bundle", "--report", report, "--replay", folder / "replay.safetensors", *options
    )


@pytest.mark.parametrize("case", [*CASES, *SAMPLERS, *damaged.OTHER_VECTORS])
def test_replayed(case: str, tmp_path: Path) -> None:
    done = replay(case, tmp_path, *(SAMPLERS | damaged.OTHER_VECTORS).get(case, ()))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert_golden(tmp_path, case)
    data, _ = read_report(tmp_path)
    assert data["bundle"] == os.path.relpath(GOLDEN / case / "bundle", tmp_path)
    assert data["peak_memory_bytes"] > 1 << 20
    assert all(time > 0 for time in data["step_ms"])
    assert "system" in data["versions"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.safetensors"]


def test_a_sampler_that_the_bundle_does_not_hold_is_named(tmp_path: Path) -> None:
    held = "the bundle holds 5 steps, guidance 2.5; 2 steps, guidance 2.5; 8 steps, guidance 1; choose"
    assert_refused(replay("samplers/two-steps", tmp_path, "--steps", 3), held)
    assert_refused(replay("dpm-history", tmp_path, "--guidance", 2), "holds 5 steps, guidance 1; choose")


ROWS_AT_TWO: dict[str, Callable[[dict[str, Any]], object]] = {
    "not named": lambda data: data["samplings"][0].pop("step_vectors"),
    "not listed": lambda data: data["files"].pop("step_vectors-2.safetensors"),
    "outside": lambda data: data["samplings"][0].update(step_vectors="../x"),
    "of another count": lambda data: data["samplings"][0].update(step_vectors="step_vectors.safetensors"),
}


@pytest.mark.parametrize("damage", ROWS_AT_TWO)
def test_rows_of_another_step_count_are_checked(damage: str, tmp_path: Path) -> None:
    case, options = next(iter(damaged.OTHER_VECTORS.items()))
    bundle = Path(shutil.copytree(GOLDEN / case / "bundle", tmp_path / "bundle"))
    data = json.loads((bundle / "bundle.json").read_text())
    ROWS_AT_TWO[damage](data)
    (bundle / "bundle.json").write_text(json.dumps(data))
    recording = GOLDEN / case / "replay.safetensors"
    done = dq_run("--bundle", bundle, "--report", tmp_path / "report", "--replay", recording, *options)
    assert_refused(done, "step_vectors")


def test_rows_of_another_step_are_noticed(tmp_path: Path) -> None:
    case = damaged.VECTORS
    bundle = Path(shutil.copytree(GOLDEN / case / "bundle", tmp_path / "bundle"))
    rows = load_file(bundle / "step_vectors.safetensors")["step_vectors"]
    save_file({"step_vectors": rows[[0, 1, 3, 2, 4]]}, bundle / "step_vectors.safetensors")
    data = json.loads((bundle / "bundle.json").read_text())
    digest = hashlib.sha256((bundle / "step_vectors.safetensors").read_bytes()).hexdigest()
    data["files"]["step_vectors.safetensors"] = digest
    (bundle / "bundle.json").write_text(json.dumps(data))
    recording = GOLDEN / case / "replay.safetensors"
    done = dq_run("--bundle", bundle, "--report", tmp_path / "report", "--replay", recording)
    assert_refused(done, "execution 4 was given another step_vectors")


@pytest.mark.parametrize("change", DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_samplers_are_refused(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(GOLDEN / "samplers" / "two-steps" / "bundle", tmp_path / "bundle"))
    data = json.loads((bundle / "bundle.json").read_text())
    change(data)
    (bundle / "bundle.json").write_text(json.dumps(data))
    done = dq_run(
        "--bundle",
        bundle,
        "--report",
        tmp_path / "report",
        "--steps",
        2,
        "--replay",
        GOLDEN / "samplers" / "two-steps" / "replay.safetensors",
    )
    assert_refused(done)


def test_all_cases_are_here() -> None:
    assert CASES == [
        "ddim-corrected",
        "ddim-guided",
        "ddim-noise",
        "dpm-history",
        "euler-latents",
        "overflow",
        damaged.VECTORS,
        "trajectory",
    ]


def test_first_seed_without_the_second_half(tmp_path: Path) -> None:
    done = replay("dpm-history", tmp_path, "--seeds", 1, "--teacher-forced", "off")
    assert done.returncode == 0, done.stderr
    data, tensors = read_report(tmp_path)
    whole = load_file(GOLDEN / "dpm-history" / "expected" / "report.safetensors")
    assert set(tensors) == {"latents"}
    np.testing.assert_allclose(tensors["latents"], whole["latents"][:, :1], rtol=1e-6, atol=1e-6)
    assert len(data["final"]["psnr"]) == 1


@pytest.mark.parametrize("what", ["inputs", "timesteps"])
def test_the_replay_notices_other_inputs(what: str, tmp_path: Path) -> None:
    tensors = load_file(GOLDEN / "dpm-history" / "replay.safetensors")
    tensors[what][3] += 1e-4 * max(1, np.abs(tensors[what][3]).max())
    save_file(tensors, tmp_path / "other.safetensors")
    bundle, other = GOLDEN / "dpm-history" / "bundle", tmp_path / "other.safetensors"
    done = dq_run("--bundle", bundle, "--report", tmp_path / "r", "--replay", other)
    assert_refused(done, "execution 3 was given another " + {"inputs": "sample", "timesteps": "timestep"}[what])


def test_an_old_report_does_not_survive_a_failure(tmp_path: Path) -> None:
    """The tensors are written before report.json, which is removed first."""
    shutil.copytree(GOLDEN / "dpm-history" / "expected", tmp_path / "report")
    (tmp_path / "report" / "report.safetensors").unlink()
    (tmp_path / "report" / "report.safetensors").mkdir()  # cannot be replaced by a file
    done = replay("dpm-history", tmp_path / "report")
    assert_refused(done, "cannot write the report")
    assert not (tmp_path / "report" / "report.json").exists()


def test_the_warm_up_is_corrected_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden vectors begin after it."""
    bundles, references, samplers = (module(name, monkeypatch) for name in ("bundle", "reference", "sampler"))

    class Recorder:
        warm: ClassVar[dict[str, Any]] = {}

        def warm_up(self, method: str, inputs: dict[str, Any]) -> None:
            self.warm[method] = inputs["sample"]

    bundle = bundles.read_bundle(GOLDEN / "ddim-corrected" / "bundle", "golden")
    reference = references.read_reference(bundle)
    samplers.warm_up(bundle, reference, samplers.Guided(bundle, Recorder()))
    table = json.loads((GOLDEN / "ddim-corrected" / "bundle" / "bundle.json").read_text())["table"]
    assert len(Recorder.warm) == len(bundle.methods) == 2
    for method, x in Recorder.warm.items():
        k = bundle.method_of_step.index(method)
        shift = np.array(table["correction"]["input_shift"][k], np.float32).reshape(1, 3, 1, 1)
        np.testing.assert_array_equal(x, np.float32(table["input_scale"][k]) * reference.start[:1] + shift)


def test_imports_nothing_of_the_toolchain() -> None:
    for path in PYTHON.glob("*.py"):
        assert "dq_toolchain" not in path.read_text(), path.name


def test_the_board_is_named_where_the_system_knows_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The device tree's text ends with a zero byte."""
    report = module("report", monkeypatch)
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert report.device_name(tmp_path / "model") == "NVIDIA Jetson Orin Nano Developer Kit"
    assert re.search(r", \d+ cores$", report.device_name(tmp_path / "none"))


def test_report_is_plain_json(tmp_path: Path) -> None:
    """What is not finite is null: no NaN reaches the file."""
    assert replay("overflow", tmp_path).returncode == 0

    def refuse(name: str) -> None:
        raise AssertionError(name)

    data = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert None in data["final"]["psnr"]
