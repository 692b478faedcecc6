"""Two exports of one artifact are one file, whatever process and folder they are made in, and say nothing of either."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dq_toolchain.backends.coreai.asset import FILES, load
from tests.backends.coreai.conftest import EXACT, Converted, converted
from tests.backends.coreai.planted import planted

EXPORT = """
import sys
from pathlib import Path
from tests.backends.coreai.conftest import EXACT, converted
converted(Path(sys.argv[1]), **EXACT)
"""


def _same(ours: Path, theirs: Path) -> None:
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()} == set(FILES)
    for name in FILES:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.slow
def test_an_export_of_another_process_is_the_same_file(exact: Converted, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "77", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", EXPORT, str(tmp_path / "made")], check=True, capture_output=True, env=environment
    )
    _same(tmp_path / "made" / exact.asset.name, exact.asset)


def test_a_second_export_of_this_process_is_the_same_file(exact: Converted, tmp_path: Path) -> None:
    _same(converted(tmp_path, **EXACT).asset, exact.asset)


def test_an_asset_that_is_loaded_and_saved_is_the_same_file(exact: Converted, tmp_path: Path) -> None:
    once = planted(exact.asset, tmp_path / "once", lambda program: None)
    _same(once, exact.asset)
    _same(planted(once, tmp_path / "twice", lambda program: None), exact.asset)


def test_no_file_names_a_folder_or_a_machine(exact: Converted) -> None:
    root = Path(__file__).parents[3]
    machine = {os.uname().nodename} - {name for name in [os.uname().nodename] if len(name) < 5}  # found by chance
    names = {*machine, str(Path.home()), str(root), str(root.resolve()), sys.prefix, ".py", "site-packages"}
    for name in FILES:
        data = (exact.asset / name).read_bytes()
        assert [one for one in names if one.encode() in data] == []


def test_a_small_file_is_read_every_time(exact: Converted) -> None:
    """A file below 16 KB is read into memory that is aligned to 16 bytes: blobs that want more end the process, by chance."""
    text = str(load(exact.asset).owner)
    heads = re.findall(r'blob_\d+: "0x([0-9A-F]{8})', text)
    assert heads
    assert {int.from_bytes(bytes.fromhex(head), "little") for head in heads} == {16}
