"""Golden recordings through the whole program, under the sanitizers: every figure as the host has it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.runtime_samples import damaged
from tests.runtime_samples.cpp_core.conftest import (
    ALL,
    GOLDEN,
    assert_refused,
    replay,
    run,
    seal_files,
)

SCHEMA = GOLDEN.parents[1] / "toolchain" / "formats" / "schemas" / "report.schema.json"


DAMAGE: list[Callable[[dict[str, Any]], object]] = [
    lambda d: d["samplings"][0]["step_groups"].pop(),
    lambda d: d["samplings"][0]["step_groups"][0].append(1),
    lambda d: d["samplings"].append(d["samplings"][0]),
    lambda d: d["samplings"][0].update(reference="reference-9.safetensors"),
    lambda d: d["samplings"][0].update(reference="../reference.safetensors"),
    lambda d: d["samplings"][0].update(steps=0),
    lambda d: d["samplings"][0].update(guidance=1e7),
    lambda d: d["samplings"][0]["table"].pop("a"),
    lambda d: d.pop("steps"),
    lambda d: d.update(samplings={}),
]


def _read(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return data


def _close(got: float | None, wanted: float | None) -> bool:
    return got == wanted if got is None or wanted is None else math.isclose(got, wanted, rel_tol=1e-6)


@pytest.mark.parametrize("case", ALL)
def test_report_is_the_expected_one(case: str, sanitized: Path, tmp_path: Path) -> None:
    done = replay(sanitized, case, tmp_path / "report", *ALL[case])
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stderr
    report, expected = _read(tmp_path / "report"), _read(GOLDEN / case / "expected")
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert [row["step"] for row in report["per_step"]] == [row["step"] for row in expected["per_step"]]
    for row, wanted in zip(report["per_step"], expected["per_step"], strict=True):
        assert _close(row["error_fp32"], wanted["error_fp32"]), (row, wanted)
        assert _close(row["error_simulation"], wanted["error_simulation"]), (row, wanted)
    assert all(map(_close, report["final"]["psnr"], expected["final"]["psnr"]))
    assert len(report["final"]["psnr"]) == len(expected["final"]["psnr"])
    for key in ("schema", "schema_version", "target", "bundle_sha256", "steps", "guidance"):
        assert report.get(key) == expected.get(key)
    assert (tmp_path / "report" / report["bundle"]).resolve() == (GOLDEN / case / "bundle").resolve()


@pytest.mark.parametrize("case", ALL)
def test_tensors_are_the_expected_ones(case: str, sanitized: Path, tmp_path: Path) -> None:
    assert replay(sanitized, case, tmp_path, *ALL[case]).returncode == 0
    got, expected = (
        load_file(tmp_path / "report.safetensors"),
        load_file(GOLDEN / case / "expected" / "report.safetensors"),
    )
    assert got.keys() == expected.keys()
    for name in expected:
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, atol=0, equal_nan=True)


def test_first_seed_without_the_teacher_forced_half(sanitized: Path, tmp_path: Path) -> None:
    case = "dpm-history"
    assert replay(sanitized, case, tmp_path, "--seeds", "1", "--teacher-forced", "off").returncode == 0
    got, expected = (
        load_file(tmp_path / "report.safetensors"),
        load_file(GOLDEN / case / "expected" / "report.safetensors"),
    )
    assert set(got) == {"latents"}
    np.testing.assert_allclose(got["latents"], expected["latents"][:, :1], rtol=1e-6)
    assert len(_read(tmp_path)["final"]["psnr"]) == 1


def test_a_sampler_that_the_bundle_does_not_hold_is_named(sanitized: Path, tmp_path: Path) -> None:
    held = "the bundle holds 5 steps, guidance 2.5; 2 steps, guidance 2.5; 8 steps, guidance 1; choose"
    assert_refused(replay(sanitized, "samplers/two-steps", tmp_path, "--steps", "3"), held)
    assert_refused(replay(sanitized, "samplers/two-steps", tmp_path, "--guidance", "1"), "got 5 steps, guidance 1")
    assert_refused(replay(sanitized, "dpm-history", tmp_path, "--steps", "3"), "holds 5 steps, guidance 1; choose")


@pytest.mark.parametrize("change", DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_samplers_are_refused(
    change: Callable[[dict[str, Any]], object], sanitized: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(GOLDEN / "samplers" / "two-steps" / "bundle", tmp_path / "bundle"))
    data = json.loads((bundle / "bundle.json").read_text())
    change(data)
    (bundle / "bundle.json").write_text(json.dumps(data))
    assert_refused(replay(sanitized, "samplers/two-steps", tmp_path / "report", "--steps", "2", bundle=bundle))


def test_other_inputs_are_noticed(sanitized: Path, tmp_path: Path) -> None:
    """The recording is a check only if it refuses a sampler that gives the network something else."""
    bundle = tmp_path / "bundle"
    shutil.copytree(GOLDEN / "euler-latents" / "bundle", bundle)
    data = json.loads((bundle / "bundle.json").read_text())
    data["table"]["b"][2][0] *= 1 + 1e-4
    (bundle / "bundle.json").write_text(json.dumps(data))
    assert_refused(replay(sanitized, "euler-latents", tmp_path / "report", bundle=bundle), "sample of execution 3")
    data["table"]["timesteps"][0] += 1
    (bundle / "bundle.json").write_text(json.dumps(data))
    seal_files(bundle)
    assert_refused(replay(sanitized, "euler-latents", tmp_path / "report", bundle=bundle), "timestep of execution 0")


def test_rows_of_another_step_are_noticed(sanitized: Path, tmp_path: Path) -> None:
    case = damaged.VECTORS
    bundle = Path(shutil.copytree(GOLDEN / case / "bundle", tmp_path / "bundle"))
    rows = load_file(bundle / "step_vectors.safetensors")["step_vectors"]
    save_file({"step_vectors": np.concatenate([rows[:2], rows[3:], rows[2:3]])}, bundle / "step_vectors.safetensors")
    seal_files(bundle)
    assert_refused(replay(sanitized, case, tmp_path / "report", bundle=bundle), "step_vectors of execution 4 is")


ROWS_AT_TWO: dict[str, Callable[[dict[str, Any]], object]] = {
    "not named": lambda data: data["samplings"][0].pop("step_vectors"),
    "not listed": lambda data: data["files"].pop("step_vectors-2.safetensors"),
    "outside": lambda data: data["samplings"][0].update(step_vectors="../x"),
    "of another count": lambda data: data["samplings"][0].update(step_vectors="step_vectors.safetensors"),
    "no text": lambda data: data["samplings"][0].update(step_vectors=2),
}


@pytest.mark.parametrize("damage", ROWS_AT_TWO)
def test_rows_of_another_step_count_are_checked(damage: str, sanitized: Path, tmp_path: Path) -> None:
    case, options = next(iter(damaged.OTHER_VECTORS.items()))
    bundle = Path(shutil.copytree(GOLDEN / case / "bundle", tmp_path / "bundle"))
    data = json.loads((bundle / "bundle.json").read_text())
    ROWS_AT_TWO[damage](data)
    (bundle / "bundle.json").write_text(json.dumps(data))
    assert_refused(replay(sanitized, case, tmp_path / "report", *options, bundle=bundle), "step_vectors")


def test_rows_where_the_program_takes_the_timestep(sanitized: Path, tmp_path: Path) -> None:
    case = "samplers/two-steps"
    bundle = Path(shutil.copytree(GOLDEN / case / "bundle", tmp_path / "bundle"))
    data = json.loads((bundle / "bundle.json").read_text())
    data["samplings"][0]["step_vectors"] = "reference.safetensors"
    (bundle / "bundle.json").write_text(json.dumps(data))
    done = replay(sanitized, case, tmp_path / "report", bundle=bundle)
    assert_refused(done, "samplings must name a file of step_vectors if the program takes them, and none otherwise")


def test_unit_tests_pass(sanitized: Path) -> None:
    done = run(sanitized / "dq-unit-tests")
    assert done.returncode == 0, done.stderr
