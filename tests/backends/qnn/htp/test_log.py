"""What is caught of the log, and what passes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dq_toolchain.backends.qnn.htp.log import caught, read_log

REFUSED = (
    "\x1b[1;31m2026-11-28 22:00:54.879 [E:onnxruntime:, qnn_execution_provider.cc:2453 GetCapabilityImpl] Unsupported nodes in "
    "QNN EP: { name: a/b.dq, type: DequantizeLinear }{ name: c, type: Conv }\x1b[m\n"
)
WARNED = "\x1b[0;93m2026-11-28 22:02:37.783 [W:onnxruntime:name, a.cc:290 Parse] Invalid HTP architecture: 99\x1b[m\n"
NEVER = "2026-11-28 22:02:04 [W:onnxruntime:, b.cc:933 QnnEp] File mapped weights feature is only available on Windows arm64\n"


def test_levels_are_told_apart_and_the_rest_is_kept() -> None:
    log, rest = read_log(f"a bar\n{REFUSED}{REFUSED}{NEVER}{WARNED} # LIBNATIVE: No alternate configuration\nlast")
    assert log.refused == ("a/b.dq (DequantizeLinear)", "c (Conv)")
    assert len(log.errors) == 1
    assert log.warnings == ("Invalid HTP architecture: 99",)
    assert rest == "a bar\nlast"


def test_native_output_is_held_back_and_other_output_comes_later(capfd: pytest.CaptureFixture[str]) -> None:
    with caught() as lines:
        os.write(1, b"a result\n")
        os.write(2, b"a bar\n" + WARNED.encode())
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'of a child\\n')"], check=True)
        assert lines.log().warnings == ("Invalid HTP architecture: 99",)
    os.write(2, b"afterwards\n")
    assert capfd.readouterr() == ("a result\n", "a bar\nof a child\nafterwards\n")


def test_descriptors_come_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with caught():
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    os.write(1, b"back\n")
    assert capfd.readouterr() == ("back\n", "")
