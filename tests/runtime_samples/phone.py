"""A folder in the place of a phone: `adb` is a script that executes on this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ADB = """#!/usr/bin/env bash
# What begins with /data/local/tmp or /sdcard on the phone is in the folder $PHONE here.
set -e
args=("${@//\\/data\\/local\\/tmp/$PHONE/tmp}")
args=("${args[@]//\\/sdcard/$PHONE/sdcard}")
case "${args[0]}" in
get-state) echo device ;;
shell) exec bash -c "${args[*]:1}" ;;
push) cp -r "${args[1]}" "${args[2]}" ;;
pull) cp "${args[1]}" "${args[2]}" ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Phone:
    """``disk`` is the phone's; ``bundle`` has the named files, empty."""

    def __init__(self, folder: Path, *files: str) -> None:
        self.disk, self.bundle = folder / "disk", folder / "a bundle"
        self.temporary = self.disk / "tmp"
        for part in (self.temporary, self.disk / "sdcard", self.bundle):
            part.mkdir(parents=True)
        for name in files:
            (self.bundle / name).write_text("{}")
        self._adb = executable(folder / "bin" / "adb", ADB)

    def run(self, script: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
        path = f"{self._adb.parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PHONE": str(self.disk)}
        command = list(map(str, (script, *words)))
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
