"""A target is one folder: with ``added/toy`` beside the others the command has its flags, its section, and runs it."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain import backends, toolchain
from dq_toolchain.backends.base import Execute, Runtime
from dq_toolchain.toolchain.checks import MINIMUM_SEEDS
from dq_toolchain.toolchain.formats.bundle import Bundle
from tests import tiny_artifacts

Command = Callable[..., tuple[int, str, str]]
"""(arguments) -> exit code, stdout, stderr."""
COMMANDS, TOY = "dq_toolchain.toolchain.cli", "dq_toolchain.backends.toy"


def _forget(prefix: str) -> None:
    for name in [name for name in sys.modules if name == prefix or name.startswith(f"{prefix}.")]:
        del sys.modules[name]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """The command as it starts in a project with one more target, in a folder with an artifact."""
    shutil.copytree(Path(__file__).with_name("added"), tmp_path / "added")
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path / "added")])
    kept = {name: module for name, module in sys.modules.items() if name.startswith(COMMANDS)}
    package = vars(toolchain).get("cli")
    _forget(COMMANDS)
    artifact, unet = tiny_artifacts.tiny_artifact()
    artifact.save(
        tmp_path / "dq-out" / "calibration", tiny_artifacts.tiny_reference(artifact, unet, seeds=MINIMUM_SEEDS)
    )
    monkeypatch.chdir(tmp_path)
    run_command = importlib.import_module(f"{COMMANDS}.entry").run_command

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_command(list(arguments))
        return code, *capsys.readouterr()

    yield run
    _forget(COMMANDS)
    _forget(TOY)
    sys.modules.update(kept)
    vars(toolchain).pop("cli", None)
    if package is not None:
        vars(toolchain)["cli"] = package
    vars(backends).pop("toy", None)


def test_the_command_knows_it(command: Command) -> None:
    code, out, _ = command("targets", "--json")
    assert code == 0
    assert {row["name"] for row in json.loads(out)} >= {"toy", backends.DEFAULT}
    text = " ".join(command("export", "--help")[1].split())
    for shown in (
        "--flavour <str> toy: what the program tastes of (sweet | sour) [default: sweet]",
        "--depth <int> toy: how deep the program lies (1 to 9) [default: 3]",
        "--no-polish toy: leave the program as it is",
        "toy: input: a table of scales in the program",
        "dq-toolchain export --target toy --flavour sour",
    ):
        assert shown in text
    assert "--taste" not in text
    written = tomllib.loads(
        command("recipe", "--target", "toy", "--depth", "4", "--no-polish", "--step-groups", "3")[1]
    )
    assert written["toy"] == {"flavour": "sweet", "step_groups_as": "input", "depth": 4, "polish": False}
    assert written["export"]["target"] == "toy"
    assert written["quantize"]["step_groups"] == 3


def test_it_is_exported_run_and_validated(command: Command, tmp_path: Path) -> None:
    (tmp_path / "dq.toml").write_text("[export]\ntarget = 'toy'\n[toy]\nflavour = 'sour'\ndepth = 5\n")
    code, _, err = command("export", "--recipe", "dq.toml", "--no-polish", "--json")
    assert (code, err) == (0, "sour, 5 deep, rough\n")
    code, out, _ = command("run", "--target", "toy", "--threads", "1", "--json")
    assert (code, json.loads(out)["runtime"]["name"]) == (0, "toy")
    assert command("validate", "--target", "toy")[0] == 0
    assert command("doctor", "--target", "toy")[0] == 0


def test_it_runs_on_the_emulator_that_it_brings(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("export", "--target", "toy")[0] == 0
    code, out, err = command("run", "--target", "toy", "--emulator")
    assert (code, out, err) == (2, "", "error: target 'toy' has no emulator of its device; leave --emulator out\n")
    assert not (tmp_path / "dq-out" / "toy" / "report.json").exists()
    toy: Any = importlib.import_module(TOY)

    def open_emulator(bundle: Bundle, folder: Path) -> tuple[Execute, Runtime]:
        execute, runtime = toy.open(bundle, folder, None)
        return execute, replace(runtime, emulated=True, device="emulated toy")

    monkeypatch.setattr(toy, "open_emulator", open_emulator, raising=False)
    code, out, err = command("run", "--target", "toy", "--emulator", "--threads", "2")
    assert (code, err) == (2, "error: threads cannot be set for an emulator; leave --threads out\n")
    code, out, _ = command("run", "--target", "toy", "--emulator", "--json")
    report = json.loads(out)
    assert (code, report["emulated"], report["device"]) == (0, True, "emulated toy")
    assert (report["load_ms"], set(report["step_ms"]), report["peak_memory_bytes"]) == (None, {None}, None)
    assert command("validate", "--target", "toy")[0] == 0


def test_its_mistakes_are_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "dq.toml").write_text("[toy]\ncolour = 'red'\ntaste = 'lemon'\n")
    code, _, err = command("export", "--recipe", "dq.toml", "--target", "toy", "--depth", "10")
    assert code == 2
    assert "dq.toml:2 [toy] colour: unknown, allowed: flavour, step_groups_as, depth, polish" in err
    assert 'dq.toml:3 [toy] taste: is called flavour now; write flavour = "sour"' in err
    assert "--depth: got 10, input should be less than or equal to 9" in err
    assert "--no-polish is for target 'toy', got target" in command("export", "--no-polish")[2]
    assert "--depth is for target 'toy', got target" in command("export", "--depth", "4")[2]
    assert (
        "--taste: is called --flavour now; write --flavour sweet"
        in command("export", "-t", "toy", "--taste", "sugar")[2]
    )
