"""The core in a host that has set a locale with a decimal comma."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime_samples.cpp_core.conftest import run
from tests.runtime_samples.locales import comma


def test_unit_tests_pass_where_printf_writes_a_comma(sanitized: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    done = run(sanitized / "dq-unit-tests", environment=comma(tmp_path_factory))
    assert done.returncode == 0, done.stderr
    assert "printf writes 0,5" in done.stdout
