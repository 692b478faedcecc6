"""What can go wrong for a user: one line, exit code 2, and what was there before stays as it was."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from dq_toolchain import backends
from dq_toolchain.backends import base
from dq_toolchain.backends.coreai import asset as asset_module
from dq_toolchain.backends.coreai import vendor
from dq_toolchain.backends.coreai.asset import load
from dq_toolchain.backends.programs import program_checks
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Bundle
from tests import tiny, tiny_artifacts
from tests.backends.coreai.conftest import Converted, lower

Spoil = Callable[[pytest.MonkeyPatch, Path], list[str]]
"""Prepares the folder ``dq-out`` and returns arguments of export."""


def _version(monkeypatch: pytest.MonkeyPatch, found: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(vendor, "version", version)
    monkeypatch.setattr(base, "version", version)
    for cached in (vendor.authoring, vendor.runtime, vendor.converter, vendor.operators, vendor.mlir, vendor.bindings):
        cached.cache_clear()


def library_missing(monkeypatch: pytest.MonkeyPatch, out: Path) -> list[str]:
    _version(monkeypatch, {})
    return []


def other_version(monkeypatch: pytest.MonkeyPatch, out: Path) -> list[str]:
    _version(monkeypatch, vendor.VERSIONS | {"coreai-core": "1.0.0b4"})
    return []


def disk_full(monkeypatch: pytest.MonkeyPatch, out: Path) -> list[str]:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(asset_module, "reserve", full)
    return []


def file_in_the_way(monkeypatch: pytest.MonkeyPatch, out: Path) -> list[str]:
    (out / "file").write_text("mine")
    return ["--out", str(out / "file" / "new"), "--calibration", str(out / "calibration")]


def no_four_bits(monkeypatch: pytest.MonkeyPatch, out: Path) -> list[str]:
    return ["--lut"]


CASES: dict[str, tuple[Spoil, str]] = {
    "library missing": (library_missing, r"needs coreai-core.*pip install 'dq-toolchain\[coreai\]'"),
    "other version": (other_version, r"needs coreai-core 1\.0\.0b3, .* got 1\.0\.0b4; install it with: pip install"),
    "disk full": (disk_full, r"cannot be written: .*No space left on device; free some space or name another --out"),
    "folder cannot be made": (file_in_the_way, "file"),
    "no weights for tables": (no_four_bits, "tables are for weights of 4 bits and fewer"),
}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with the calibration of a small network, and an older bundle in its place."""
    out = tmp_path_factory.mktemp("calibrated")
    artifact, unet = tiny_artifacts.lively_artifact(unet=tiny.small_unet())
    artifact.save(out / "calibration", tiny_artifacts.tiny_reference(artifact, unet, seeds=10))
    return out


def _listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_line_and_writes_nothing(
    name: str,
    calibrated: Path,
    bundle: tuple[Bundle, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = Path(shutil.copytree(calibrated, tmp_path / "dq-out"))
    shutil.copytree(bundle[1], out / "coreai")
    prepare, message = CASES[name]
    arguments = prepare(monkeypatch, out)
    before = _listing(tmp_path)
    code = run_command(["export", "--target", "coreai", "--out", str(out), *arguments])
    monkeypatch.undo()
    stdout, stderr = capsys.readouterr()
    error = stderr.splitlines()[-1]
    assert code == 2
    assert stdout == ""
    assert error.startswith("error: ")
    assert stderr.count("error") == 1
    assert re.search(message, error), error
    assert _listing(tmp_path) == before


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (lambda asset: _cut(asset / "main.mlirb"), r"main\.mlirb is damaged, its SHA-256"),
    "one bit": (lambda asset: _flip(asset / "main.mlirb"), r"main\.mlirb is damaged, its SHA-256"),
    "no hash": (lambda asset: (asset / "main.hash").unlink(), r"is no whole \.aimodel: .*main\.hash"),
    "no program": (lambda asset: (asset / "main.mlirb").unlink(), r"is no whole \.aimodel: .*main\.mlirb"),
    "no metadata": (lambda asset: (asset / "metadata.json").unlink(), r"is no whole \.aimodel: .*metadata\.json"),
    "nothing of a program": (lambda asset: _rewritten(asset), "is no MLIR bytecode"),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _rewritten(asset: Path) -> None:
    import hashlib

    (asset / "main.mlirb").write_bytes(b"MLIR" * 100)
    (asset / "main.hash").write_bytes(hashlib.sha256(b"MLIR" * 100).digest())


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_asset_is_one_line(name: str, exact: Converted, tmp_path: Path) -> None:
    asset = Path(shutil.copytree(exact.asset, tmp_path / "model.aimodel"))
    damage, message = DAMAGES[name]
    damage(asset)
    with pytest.raises(BackendError, match=message) as caught:
        load(asset)
    assert "\n" not in str(caught.value)
    assert "run `dq-toolchain export --target coreai` again" in str(caught.value)


def test_doctor_says_what_fits_and_what_does_not(bundle: tuple[Bundle, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [check.detail for check in program_checks(*bundle)]
    assert texts == ["target coreai", "model.aimodel holds every method"]
    _version(monkeypatch, vendor.VERSIONS | {"coreai-torch": "0.5.0"})
    (_, program) = program_checks(*bundle)
    monkeypatch.undo()
    assert re.search(r"needs coreai-torch 0\.4\.3, .*got 0\.5\.0; install it with", program.detail)


def test_sites_that_it_cannot_hold_are_refused_by_name(tmp_path: Path) -> None:
    artifact, unet = tiny_artifacts.lively_artifact(unet=tiny.small_unet())
    sites = (replace(artifact.sites[0], bits=6), *artifact.sites[1:])
    with pytest.raises(
        BackendError, match="activation bits must be 8 for target 'coreai', got 6 at site conv_in:input"
    ):
        lower(tmp_path, replace(artifact, sites=sites), unet)


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["targets", "--json"]) == 0
    assert '"name": "coreai"' in capsys.readouterr().out
    info = backends.describe("coreai")
    assert (info.library, info.version) == ("coreai-core", vendor.VERSIONS["coreai-core"])


def test_a_full_temporary_folder_is_named(bundle: tuple[Bundle, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from dq_toolchain.backends.coreai.runtime import apple

    def full(folder: Path, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(apple, "reserve", full)
    with pytest.raises(BackendError, match=r"has no room for the \d+ MB .*No space left on device.*TMPDIR"):
        apple.Model(bundle[1] / bundle[0].program)
