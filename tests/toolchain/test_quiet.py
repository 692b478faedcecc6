"""What is set before libraries are imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from dq_toolchain.toolchain.entry import run_command
assert "torch" not in sys.modules
run_command(["targets", "--help"])
print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("own", "used"), [(None, "passive"), ("active", "active")])
def test_threads_wait_asleep_unless_the_user_says_otherwise(own: str | None, used: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if own is None else {"OMP_WAIT_POLICY": own}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == used
