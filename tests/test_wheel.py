"""What is installed is what is in the repository: the list of packages, the files in the wheel, and the command in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "dq_toolchain"
HALLS = tuple(sorted(path.name for path in (ROOT / "src" / PACKAGE).iterdir() if path.is_symlink()))
OTHER = ("pyproject.toml", "README.md", "LICENSE", *HALLS, "src")
"""What a build reads."""


def pyproject() -> dict[str, object]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"])


def folders() -> set[str]:
    """Every folder of the package that holds a module, dotted."""
    modules = [path for name in HALLS for path in (ROOT / name).rglob("*.py")]
    return {PACKAGE, *(".".join((PACKAGE, *path.parent.relative_to(ROOT).parts)) for path in modules)}


def test_the_packages_are_the_folders() -> None:
    """A folder that is left out breaks only the wheel: an editable install finds it all the same."""
    listed = pyproject()["packages"]
    assert isinstance(listed, list)
    assert len(set(listed)) == len(listed)
    assert set(listed) == folders()
    assert [
        name for name in HALLS for path in (ROOT / name).rglob("*.py") if not (path.parent / "__init__.py").exists()
    ] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, without a network and without the repository's own build folders."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in OTHER:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(out), str(source)], check=True, capture_output=True, text=True)
    return next(out.glob("*.whl"))


def test_every_file_that_is_committed_is_in_the_wheel(wheel: Path) -> None:
    """Modules, schemas, templates, the embedded model: all that git holds in the three folders."""
    tracked = subprocess.run(["git", "ls-files", *HALLS], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("no git repository")
    held = set(zipfile.ZipFile(wheel).namelist())
    present = [name for name in tracked.stdout.splitlines() if (ROOT / name).exists()]
    assert [name for name in present if f"{PACKAGE}/{name}" not in held] == []


def test_the_installed_command_answers(wheel: Path, tmp_path: Path) -> None:
    """Installed alone into an empty folder; libraries come from this environment, our modules from the wheel."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, text=True)
    code = "import sys, dq_toolchain; print(dq_toolchain.__file__, file=sys.stderr); "
    code += "from dq_toolchain.toolchain.cli.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stderr.splitlines()[0]).is_relative_to(tmp_path)
    assert "calibrate" in done.stdout
    assert (tmp_path / "bin" / "dq-toolchain").is_file()
