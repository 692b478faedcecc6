"""The Core AI program on Linux: it says that it cannot run there; with the stand-in it writes a report that the host reads."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.toolchain.formats.report import load_report
from tests.runtime_samples.swift import ROOT, SLOW_AND_ONLY_WITH_SWIFT, inside, packages_tested

GOLDEN = ROOT / "runtime_samples" / "golden"
PROGRAM = "coreai/.build/debug/dq-run-coreai"
WITH_STAND_IN = "coreai/.build/stand-in/debug/dq-run-coreai"

pytestmark = SLOW_AND_ONLY_WITH_SWIFT


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    packages_tested()


def _port(name: str, shape: list[int], dtype: str) -> dict[str, Any]:
    return {"name": name, "shape": shape, "scalarType": dtype, "padding": 0}


def _bundle(folder: Path, *, neural_engine: bool = True) -> Path:
    """The bundle of dpm-history for target coreai, two step groups; sample and output float16, labels int32."""
    bundle = folder / "bundle"
    shutil.copytree(GOLDEN / "dpm-history" / "bundle", bundle)
    data = json.loads((bundle / "bundle.json").read_text())
    (sample,) = (port["shape"] for port in data["inputs"] if port["name"] == "sample")
    inputs = [
        _port("sample", sample, "float16"),
        _port("timestep", [1], "float32"),
        _port("class_labels", [1], "int32"),
    ]
    function = {"inputs": inputs, "output": _port("output", sample, "float16"), "loads": True, "executes": True}
    functions = {name: {**function, "factor": index / 8} for index, name in enumerate(data["methods"])}
    program = bundle / "model.aimodel"
    program.mkdir()
    content = json.dumps({"functions": functions, "neuralEngine": neural_engine}).encode()
    (program / "stand-in.json").write_bytes(content)
    del data["files"]["model.bin"]
    data["files"]["model.aimodel/stand-in.json"] = hashlib.sha256(content).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps({**data, "target": "coreai", "program": program.name}))
    return bundle


def _run(folder: Path, bundle: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return inside([WITH_STAND_IN, "--bundle", bundle, "--report", folder / "report", *options], folder)


def test_core_ai_is_only_on_apple_systems(tmp_path: Path) -> None:
    done = inside([PROGRAM, "--bundle", "b", "--report", "r"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Apple" in done.stderr


def test_the_host_reads_the_report(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    done = _run(tmp_path, bundle, "--seeds", "1")
    assert done.returncode == 0, done.stderr
    report = load_report(tmp_path / "report")
    assert report.data["target"] == "coreai"
    assert report.data["runtime"]["name"] == "Core AI (Swift)"
    assert report.data["compute_unit"] == "Neural Engine preferred"
    assert report.data["versions"]["core_ai_architecture"]
    assert report.data["load_ms"] >= report.data["compile_ms"] > 0
    assert report.bundle_folder.resolve() == bundle.resolve()


@pytest.mark.parametrize(("unit", "said"), [("default", "all units, as Core AI chooses"), ("cpuOnly", "CPU only")])
def test_another_unit_by_its_flag(tmp_path: Path, unit: str, said: str) -> None:
    done = _run(tmp_path, _bundle(tmp_path, neural_engine=False), "--compute-unit", unit, "--keep-functions", "on")
    assert done.returncode == 0, done.stderr
    assert load_report(tmp_path / "report").data["compute_unit"] == said


def test_a_program_compiled_ahead_stands_in_the_report(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    compiled = tmp_path / "model.s1n.aimodelc"
    shutil.copytree(bundle / "model.aimodel", compiled)
    done = _run(tmp_path, bundle, "--program", str(compiled))
    assert done.returncode == 0, done.stderr
    assert load_report(tmp_path / "report").data["versions"]["compiled_ahead"] == "model.s1n.aimodelc"


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ([], ["Neural Engine preferred", "nothing else was tried", "--compute-unit default"]),
        (["--compute-unit", "ane"], ["allowed are default, cpuOnly, gpu, neuralEngine"]),
        (["--program", "model.aimodel"], ["allowed is a .aimodelc"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, options: list[str], texts: list[str]) -> None:
    done = _run(tmp_path, _bundle(tmp_path, neural_engine=False), *options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for text in texts:
        assert text in done.stderr
    assert not (tmp_path / "report").exists()


def test_a_bundle_for_core_ml_is_refused(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    data = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**data, "target": "coreml"}))
    done = _run(tmp_path, bundle)
    assert done.returncode == 2
    assert "export with --target coreai" in done.stderr


def test_neither_are_its_pictures(tmp_path: Path) -> None:
    words = ["generate", "--bundle", "b", "--prompt", "a red house", "--out", "picture.png"]
    done = inside(["coreai/.build/debug/dq-run-coreai", *words], tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "dq-run-coreai generate: " in done.stderr
    assert "Apple" in done.stderr
