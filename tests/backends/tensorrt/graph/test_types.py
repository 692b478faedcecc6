"""Programs for the device use TensorRT's API as it is: they are checked against stubs made from NVIDIA's bindings."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.stubs.tensorrt import OUT, VERSIONS, repair

from dq_toolchain.backends.tensorrt.deploy.graph_types import types_for

ROOT = Path(__file__).parents[4]
PROGRAMS = ("backends/tensorrt/deploy/build_engines.py", "backends/tensorrt/runtime/engines.py")
MISTAKES = """
import tensorrt as trt

def old(engine: trt.ICudaEngine, context: trt.IExecutionContext, builder: trt.Builder) -> None:
    print(engine.num_bindings)
    context.execute_async_v2([], 0)
    builder.max_batch_size = "one"
"""
"""API that was removed, and a method that never was."""

needs_stubs = pytest.mark.skipif(
    not (ROOT / OUT).is_dir(), reason="needs stubs of NVIDIA's bindings: python -m scripts.stubs.tensorrt"
)


def _mypy(version: str, tmp_path: Path, *programs: str) -> list[str]:
    """Errors in the programs themselves."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--python-version",
            "3.11",
            "--explicit-package-bases",
            "--namespace-packages",
            "--follow-imports=silent",
            "--ignore-missing-imports",
            f"--cache-dir={tmp_path}",
            *programs,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MYPYPATH": os.pathsep.join([str(ROOT / OUT / version), "src"])},
    )
    assert done.returncode in (0, 1), done.stderr
    names = {Path(program).name for program in programs}
    return [
        line for line in done.stdout.splitlines() if ": error:" in line and Path(line.partition(":")[0]).name in names
    ]


@needs_stubs
@pytest.mark.nvidia
@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_programs_for_the_device(version: str, tmp_path: Path) -> None:
    assert _mypy(version, tmp_path, *PROGRAMS) == []


@needs_stubs
@pytest.mark.nvidia
@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_check_bites(version: str, tmp_path: Path) -> None:
    path = tmp_path / "mistakes.py"
    path.write_text(MISTAKES)
    found = _mypy(version, tmp_path, str(path))
    assert [line.rpartition("has no attribute ")[2].split('"')[1] for line in found] == [
        "num_bindings",
        "execute_async_v2",
        "max_batch_size",
    ]


@needs_stubs
@pytest.mark.nvidia
@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_flags_are_those_of_the_version(version: str, tmp_path: Path) -> None:
    """What `types_for` asks for exists in that TensorRT; 11 has no weak typing, and the stubs know."""
    major, minor = map(int, version.split(".")[:2])
    lines = [f"print(trt.BuilderFlag.{flag})" for flag in types_for((major, minor), "fp32").flags]
    path = tmp_path / "flags.py"
    path.write_text("\n".join(["import tensorrt as trt", *lines, "print(trt.BuilderFlag.INT8)", ""]))
    assert len(lines) == (2 if major == 10 else 0)
    found = _mypy(version, tmp_path, str(path))
    assert [line for line in found if '"INT8"' in line] == found
    assert bool(found) == (major > 10)


def test_stubs_are_repaired_until_they_parse() -> None:
    broken = (
        "class A:\n    def f(self, x: int = <Kind.X: 3>) -> None: ...\n"
        "    def g(self, flag = 1 << int) -> <capsule>: ...\n    y: <Y>\n"
    )
    fixed = repair(broken)
    names = [node.name for node in ast.walk(ast.parse(fixed)) if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert names == ["A", "f", "g"]
