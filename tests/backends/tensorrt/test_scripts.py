"""The shell scripts of a bundle, run for real with a trtexec that writes down what it is asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from scripts.golden.damage import put

from dq_toolchain.backends.tensorrt.deploy.made_of import listed_files, made_of
from tests.backends.tensorrt.conftest import Lowered, give_other_weights, made

TRTEXEC = """#!/usr/bin/env python3
import json, pathlib, sys
given = dict(item.lstrip("-").partition("=")[::2] for item in sys.argv[1:])
if "help" in given:
    print("&&&& RUNNING TensorRT.trtexec [TensorRT v{number}] [b1] # trtexec --help")
    sys.exit(0)
pathlib.Path(r"{log}").open("a").write(json.dumps(given) + "\\n")
if "onnx" in given:
    assert pathlib.Path(given["onnx"]).is_file() and pathlib.Path("weights.bin").is_file()
    pathlib.Path(given["saveEngine"]).write_bytes(b"plan")
    bundle = next(p for p in pathlib.Path.cwd().parents if (p / "placements.json").is_file())
    placed = json.loads((bundle / "placements.json").read_text())
    mine = [row for row in placed.get("parts", []) if row["graph"].endswith(given["onnx"])]
    sites = (mine or [placed])[0]["int8"]
    layers = [{{"Name": s, "LayerType": "gemm", "Inputs": [{{"Format/Datatype": "Int8"}}], "Metadata": f"[ONNX Layer: {{s}}]"}}
              for s in sites]
    pathlib.Path(given["exportLayerInfo"]).write_text(json.dumps({{"Layers": layers}}))
"""


def _run(
    script: str, form: Lowered, tmp_path: Path, number: int = 100300
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, str]]]:
    """What the script did, and what it asked of a trtexec whose banner has that number for a version."""
    folder, log, trtexec = tmp_path / "bundle", tmp_path / "log", tmp_path / "trtexec"
    if not folder.exists():
        shutil.copytree(form.folder, folder)
    if not trtexec.exists():
        trtexec.write_text(TRTEXEC.format(log=log, number=number))
        trtexec.chmod(0o755)
    log.unlink(missing_ok=True)
    done = subprocess.run(
        [str(folder / script)], capture_output=True, text=True, check=False, env=os.environ | {"TRTEXEC": str(trtexec)}
    )
    return done, [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_engines_are_built_and_checked(static: Lowered, tmp_path: Path) -> None:
    done, calls = _run("build_engines.sh", static, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [call["onnx"] for call in calls] == ["steps_g0.onnx", "steps_g1.onnx"]
    assert all("int8" in call and "fp16" in call and "stronglyTyped" not in call for call in calls)
    assert all(
        call["profilingVerbosity"] == "detailed" and call["timingCacheFile"] == "../engines/timing.cache"
        for call in calls
    )
    assert "sites INT8, 0 in float" in done.stdout
    assert {path.name for path in (tmp_path / "bundle" / "engines").glob("*.plan")} == {
        "steps_g0.plan",
        "steps_g1.plan",
    }
    again, calls = _run("build_engines.sh", static, tmp_path)
    assert again.returncode == 0
    assert calls == []
    benched, calls = _run("bench.sh", static, tmp_path)
    assert benched.returncode == 0, benched.stderr
    assert [call["loadEngine"] for call in calls] == ["engines/steps_g0.plan", "engines/steps_g1.plan"]
    assert all("useCudaGraph" in call and "separateProfileRun" in call for call in calls)


def test_engines_of_other_weights_are_built_again(static: Lowered, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    done, _ = _run("build_engines.sh", static, tmp_path)
    assert done.returncode == 0, done.stderr
    files = listed_files(bundle)
    for name in ("steps_g0", "steps_g1"):
        assert (bundle / "engines" / f"{name}.made_of").read_text() == made_of(name, files)
    give_other_weights(bundle)
    done, calls = _run("build_engines.sh", static, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [call["onnx"] for call in calls] == ["steps_g0.onnx", "steps_g1.onnx"]
    (bundle / "engines" / "steps_g1.made_of").unlink()
    done, calls = _run("build_engines.sh", static, tmp_path)
    assert [call["onnx"] for call in calls] == ["steps_g1.onnx"]


def test_files_of_two_bundles_are_refused(static: Lowered, tmp_path: Path) -> None:
    """A copy that stopped half way, and a graph of an older bundle beside those of the new one."""
    bundle = Path(shutil.copytree(static.folder, tmp_path / "bundle"))
    good = (bundle / "bundle.json").read_bytes()
    put("files", "model/weights.bin", to="0" * 64)(bundle)
    done, calls = _run("build_engines.sh", static, tmp_path)
    assert (done.returncode, calls) == (2, [])
    assert "steps_g0.onnx or the weights beside it are not the files that bundle.json lists" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (bundle / "bundle.json").write_bytes(good)
    shutil.copy(bundle / "model" / "steps_g1.onnx", bundle / "model" / "steps_g2.onnx")
    done, calls = _run("build_engines.sh", static, tmp_path)
    assert (done.returncode, len(calls)) == (2, 2)
    said = "model/steps_g2.onnx is none of the graphs of placements.json; delete it, it is of another bundle"
    assert done.stderr.splitlines() == [said]


def test_fp16_graphs_are_strongly_typed(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    done, calls = _run("build_engines.sh", made("ratio-fp16", tmp_path_factory), tmp_path, 101303)
    assert done.returncode == 0, done.stderr
    assert [call["onnx"] for call in calls] == ["steps.onnx"]
    assert "stronglyTyped" in calls[0]
    assert not {"int8", "fp16"} & set(calls[0])


def test_no_flag_of_types_where_they_are_always_strong(static: Lowered, tmp_path: Path) -> None:
    done, calls = _run("build_engines.sh", static, tmp_path, 110401)
    assert done.returncode == 0, done.stderr
    assert [call["onnx"] for call in calls] == ["steps_g0.onnx", "steps_g1.onnx"]
    assert not any({"int8", "fp16", "stronglyTyped"} & set(call) for call in calls)
    assert "what is not INT8 runs in fp32" in done.stderr


def test_a_version_that_does_not_take_the_graph(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    done, calls = _run("build_engines.sh", made("ratio-fp16", tmp_path_factory), tmp_path, 100300)
    assert (done.returncode, calls) == (2, [])
    assert done.stderr.splitlines() == [
        "TensorRT 10.3 takes fp32 graphs, those of this bundle are fp16; export again with --jetpack 6"
    ]


def test_without_trtexec_or_engines(static: Lowered, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(static.folder, folder)
    for script in ("build_engines.sh", "bench.sh"):
        done = subprocess.run(
            [str(folder / script)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"TRTEXEC": str(tmp_path / "none")},
        )
        assert done.returncode == 2
        assert "no trtexec at" in done.stderr
    silent = os.environ | {"TRTEXEC": shutil.which("true") or "/bin/true"}
    done = subprocess.run([str(folder / "build_engines.sh")], capture_output=True, text=True, check=False, env=silent)
    assert done.returncode == 2
    assert "does not say its version; set TRTEXEC" in done.stderr
    done = subprocess.run(
        [str(folder / "bench.sh")],
        capture_output=True,
        text=True,
        check=False,
        env=silent,
    )
    assert done.returncode == 2
    assert "no engines" in done.stderr
