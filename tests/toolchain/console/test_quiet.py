"""What is set before libraries are imported; and what they warn of while a model is loaded reaches the user once, on one line."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import pytest

from dq_toolchain.toolchain.console.quiet import heard, unheard

SCRIPT = """
import os, sys
from dq_toolchain.toolchain.cli.entry import run_command
assert "torch" not in sys.modules
run_command(["targets", "--help"])
print(os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("own", "used"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(own: dict[str, str], used: str) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment | own, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == used


def test_warnings_of_the_libraries_are_heard_once_whatever_their_level() -> None:
    logger, lines = logging.getLogger("diffusers.loaders.some_module"), list[str]()
    root = logging.getLogger("diffusers")
    before = (root.level, root.handlers[:], root.propagate)
    root.setLevel(logging.ERROR)
    try:
        with heard(lines.append):
            for _ in range(2):
                logger.warning("keys\n were %s", "left out")
                warnings.warn_explicit(
                    "old option", FutureWarning, "/lib/diffusers/models/some.py", 1, "diffusers.models.some"
                )
            logging.getLogger("transformers").warning(
                "`Processor` requires torchvision (not installed)"
            )  # no image is read
            with unheard():
                logger.warning("checked by us")
        logger.warning("afterwards")
        assert root.level == logging.ERROR
        assert root.handlers == before[1]
    finally:
        root.setLevel(before[0])
    assert lines == ["keys were left out", "old option"]
