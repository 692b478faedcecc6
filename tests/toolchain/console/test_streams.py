"""What a command decided is its exit code, whoever reads what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SPEAK = """
import sys
from dq_toolchain.toolchain.console.streams import guard_streams
guard_streams()
for number in range(20000):
    print("line", number)
sys.stdout.flush()
print("said", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    file.write("file")
sys.exit(3)
"""


@pytest.mark.parametrize("reader", ["| head -1", ">&-", "2>&-", ">&- 2>&-", "<&-", "2>&1 | head -1", "2>/dev/full"])
def test_the_exit_code_does_not_depend_on_the_reader(reader: str, tmp_path: Path) -> None:
    (tmp_path / "speak.py").write_text(SPEAK)
    line = f"{sys.executable} {tmp_path}/speak.py {tmp_path}/file {reader}"
    shown = subprocess.run(
        ["bash", "-c", f"{line}; echo code ${{PIPESTATUS[0]}} >{tmp_path}/code"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (tmp_path / "code").read_text() == "code 3\n"
    assert "Traceback" not in shown.stderr
    assert "ignored" not in shown.stderr
    assert (tmp_path / "file").read_text() == "file", "what is printed does not end in a file that was opened"


def test_a_full_disk_is_said_in_one_line() -> None:
    line = f"{sys.executable} -c 'from dq_toolchain.toolchain.cli.entry import main; main()' --help >/dev/full"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "No space left on device" in done.stderr
