"""What answers at once imports nothing that computes: seen in the modules of a process of its own, never in its time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import dq_toolchain
from dq_toolchain.calibrate.methods import names
from dq_toolchain.toolchain.cli.names import method_names

HEAVY = ("torch", "diffusers", "transformers", "torchmetrics", "matplotlib", "scipy.stats", "executorch", "coremltools")
PROBE = f"""
import sys
from dq_toolchain.toolchain.cli.entry import run_command
code = run_command(sys.argv[1:])
print("heavy:", *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


def _run(folder: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """Exit code, all that was printed, and the heavy modules that were imported."""
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], cwd=folder, capture_output=True, text=True)
    *printed, heavy = done.stderr.splitlines()
    assert heavy.startswith("heavy:"), done.stderr
    return done.returncode, "\n".join((done.stdout, *printed)), heavy.split()[1:]


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        ("--help", 0, "calibrate"),
        ("--version", 0, "dq-toolchain "),
        ("targets", 0, "executorch"),
        ("inspect nowhere", 2, "holds neither"),
        ("doctor nowhere", 2, "cannot read"),
        ("analyze nowhere", 2, "holds neither"),
        ("validate nowhere/report.json", 2, "cannot read"),
        ("run --bundle nowhere", 2, "cannot read"),
        ("export --calibration nowhere", 2, "cannot read"),
        ("export --target abacus", 2, "target must be one of"),
        ("calibrate --weight-bits 9", 2, "--weight-bits: got 9"),
        ("calibrate --method abacus", 2, "--method: got 'abacus'"),
        ("calibrate --model ./nowhere", 2, "--model takes"),
        ("calibrate --prompts nowhere.txt", 2, "cannot read nowhere.txt"),
        ("calibrate --recipe nowhere.toml", 2, "cannot read nowhere.toml"),
        ("compare --model ./nowhere", 2, "--model takes"),
        ("compare --methods mse,abacus", 2, "--methods: got 'abacus'"),
        ("compare --bits W9A8", 2, "--bits"),
    ],
)
def test_an_answer_that_needs_no_tensor_imports_none(arguments: str, code: int, shown: str, tmp_path: Path) -> None:
    got, printed, heavy = _run(tmp_path, *arguments.split())
    assert got == code, printed
    assert shown in printed
    assert not heavy


def test_an_artifact_and_a_bundle_are_shown_without_torch(box: Path) -> None:
    for folder, shown in (("calibration", "step group 0"), ("executorch", "operations of the lowered program")):
        code, printed, heavy = _run(box, "inspect", f"dq-out/{folder}")
        assert code == 0, printed
        assert shown in printed
        assert not heavy


def test_validate_and_doctor_refuse_a_changed_bundle_without_torch(box: Path) -> None:
    path = box / "dq-out" / "executorch" / "bundle.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"target"', '"Target"', 1), encoding="utf-8")
    for arguments in (("doctor", "dq-out/executorch"), ("run",)):
        code, printed, heavy = _run(box, *arguments)
        assert code == 2, printed
        assert "bundle.json" in printed
        assert not heavy


def test_methods_are_named_as_their_files_register_them() -> None:
    assert list(method_names()) == names()


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dq_toolchain", "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dq-toolchain ")
    assert shutil.which("dq-toolchain") is not None


def test_the_version_stands_in_one_place() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in pyproject["project"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "dq_toolchain.__version__"}
    assert metadata.version("dq-toolchain") == dq_toolchain.__version__


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("export --target t", {"tensorrt"}),
        ("calibrate --method accuquant+t", {"accuquant+tac", "accuquant+tcec", "accuquant+tfmq"}),
        ("compare --methods mse,min", {"mse,minmax"}),
        ("tar", {"targets"}),
    ],
)
def test_the_shell_completes_without_torch(words: str, expected: set[str], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "_DQ_TOOLCHAIN_COMPLETE": "complete_bash",
        "COMP_WORDS": f"dq-toolchain {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    show = f"print('heavy:', *[n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr)"
    probe = f"import atexit\natexit.register(lambda: {show})\n"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{probe}from dq_toolchain.toolchain.cli.entry import main\nmain()"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == expected, done.stderr
    assert done.stderr.split() == ["heavy:"]
