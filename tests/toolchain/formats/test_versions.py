"""The version that is recorded is the package's own, installed or not."""

from __future__ import annotations

import re
from pathlib import Path

import dq_toolchain
from dq_toolchain.toolchain.formats.versions import own_version

ROOT = Path(dq_toolchain.__file__).parent
ASKED_FOR = re.compile(r"""version\(\s*["']dq[-_]toolchain["']""")
"""Raises where the sources are on the path and nothing is installed, as on a GPU host without network."""


def test_it_is_the_packages() -> None:
    assert own_version() == dq_toolchain.__version__


def test_no_module_asks_for_an_installed_package() -> None:
    files = [path for folder in ROOT.iterdir() if folder.is_dir() for path in folder.resolve().rglob("*.py")]
    assert len(files) > 200
    assert [str(path) for path in files if ASKED_FOR.search(path.read_text(encoding="utf-8"))] == []
