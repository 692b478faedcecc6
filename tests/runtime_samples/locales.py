"""A locale that writes 0,5, as hosts of the C++ core set it for their whole process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.shared import once

NAME = "de_DE.UTF-8"


def comma(folders: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which a program finds it; made for the tests, whatever is installed."""
    if not (localedef := shutil.which("localedef")):
        pytest.skip("needs localedef")
    if not Path("/usr/share/i18n/locales/de_DE").is_file():
        pytest.skip("needs the sources of glibc's locales (Debian: locales)")

    def make(folder: Path) -> None:
        command = [localedef, "-i", "de_DE", "-f", "UTF-8", str(folder / NAME)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (folder / NAME / "LC_NUMERIC").is_file(), done.stderr

    return {"LOCPATH": str(once(folders, "comma-locale", make)), "LC_ALL": NAME}
