"""``import dq_toolchain as dq``: what it offers, how soon, and that no import changes it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dq_toolchain as dq

LOADED = "print(' '.join(name for name in ('torch', 'diffusers', 'rich', 'pydantic') if name in sys.modules))"


def _said(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_imports_nothing_heavy() -> None:
    assert _said(f"import sys, dq_toolchain; {LOADED}") == ""


def test_everything_that_it_names_is_there() -> None:
    assert all(hasattr(dq, name) for name in dq.__all__)
    assert issubclass(dq.errors.RecipeError, dq.DqError)


def test_calibrate_is_the_function_whatever_is_imported_before_and_after() -> None:
    for program in (
        "import dq_toolchain.calibrate.work.seeds; import dq_toolchain as dq",
        "import dq_toolchain as dq; import dq_toolchain.calibrate.work.seeds; from dq_toolchain.calibrate import work",
        "import importlib, dq_toolchain as dq; importlib.import_module('dq_toolchain.calibrate.work.seeds')",
    ):
        assert _said(
            f"{program}; from dq_toolchain import calibrate; print(dq.calibrate is calibrate, callable(calibrate))"
        ) == ("True True")


def test_it_still_is_after_its_own_modules_were_imported() -> None:
    import dq_toolchain.calibrate.run

    assert dq_toolchain.calibrate is dq.calibrate
    assert "dq_toolchain.calibrate.run" in sys.modules
    with pytest.raises(dq.errors.RecipeError, match="unknown setting"):
        dq.calibrate(no_such_setting=1)


def test_the_package_of_that_name_is_reached_by_import() -> None:
    from dq_toolchain.calibrate.work import seeds
    from dq_toolchain.calibrate.work.seeds import hash_seed

    assert seeds.hash_seed is hash_seed
