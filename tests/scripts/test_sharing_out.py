"""Tests that share what they make run in one process, seen in a run of pytest with two."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import TOGETHER

ROOT = Path(__file__).parents[2]
FILE = "import pytest\n\n\n@pytest.mark.parametrize('number', range(8))\ndef test_it(number):\n    pass\n"


def test_a_group_stays_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name in (f"{TOGETHER[0]}/test_one.py", f"{TOGETHER[0]}/below/test_two.py", "tests/api/test_three.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(FILE)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    how = ["-v", "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *how], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = re.findall(r"\[(gw\d)\] .*PASSED (\S+)::", done.stdout)
    processes = {name: {process for process, file in found if name in file} for name in ("one", "two", "three")}
    assert len(found) == 3 * 8
    assert processes["one"] == processes["two"]
    assert [len(each) for each in processes.values()] == [1, 1, 1]
