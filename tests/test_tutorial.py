"""The commands of docs/TUTORIAL.md: all are parsed, and the slow test runs them in order, as far as this machine goes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dq_toolchain import backends
from dq_toolchain.toolchain.cli.entry import run_command

ROOT = Path(__file__).parent.parent
COMMANDS = [
    shlex.split(line)[1:]
    for line in (ROOT / "docs" / "TUTORIAL.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("    dq-toolchain ")
]


def test_the_tutorial_has_each_step_for_each_kind_of_device() -> None:
    assert {words[0] for words in COMMANDS} == {"calibrate", "generate", "export", "run", "validate"}
    assert len(COMMANDS) == 1 + 2 + 3 * 3 + 1


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_exists(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([words[0], "--help"]) == 0
    known = set(re.findall(r"(--[\w-]+)", capsys.readouterr().out))
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.slow
def test_the_commands_work_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    for words in COMMANDS:
        target = words[words.index("--target") + 1] if "--target" in words else backends.DEFAULT
        if words[0] != "calibrate" and backends.describe(target).version is None:
            continue
        assert run_command(words) in ((0, 3) if words[0] == "validate" else (0,)), words
    for name in ("simulated.png", "fp32.png", "device.png"):
        assert Image.open(name).size == (64, 64)
