"""The library of the Android app on this machine's Java."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from tests.shared import once

HOST = Path(__file__).parent / "host"
APP = Path(__file__).parents[3] / "runtime_samples" / "android_app"
Command = Sequence[object]
MAIN = APP / "app" / "src" / "main"
JAVA = MAIN / "java" / "org" / "dqtoolchain" / "draw"


def jdk() -> Path:
    """Folder of the JDK whose ``javac`` is on the path."""
    found = shutil.which("javac")
    if found is None:
        pytest.skip("needs a JDK")
    folder = Path(found).resolve().parents[1]
    if not (folder / "include" / "jni.h").is_file():
        pytest.skip("needs a JDK with jni.h")
    return folder


def classes(folders: pytest.TempPathFactory) -> Path:
    """The app's Java classes, compiled as Android's tools would: for Java 17, every warning an error."""

    def make(folder: Path) -> None:
        words: list[object] = [
            "--release",
            "17",
            "-Xlint:all",
            "-Werror",
            "-d",
            folder,
            *sorted(JAVA.glob("*.java")),
            HOST / "Host.java",
        ]
        done = subprocess.run(
            list(map(str, (jdk() / "bin" / "javac", *words))), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    return once(folders, "android-classes", make)


class Jvm:
    """A Java with the app's classes and one build of the library."""

    def __init__(self, classes: Path, library: Path) -> None:
        assert library.is_file()
        self.words = ["-Xcheck:jni", "-Xshare:auto", "-cp", classes, f"-Djava.library.path={library.parent}", "Host"]
        self.java = jdk() / "bin" / "java"

    def run(self, *commands: Command, environment: Mapping[str, str] = MappingProxyType({})) -> list[list[str]]:
        """What Host.java printed for each command; misuse of JNI is a line too, so no test that compares lines passes with any."""
        words = [word for command in commands for word in (*command, ":::")][:-1]
        done = subprocess.run(
            list(map(str, [self.java, *self.words, *words])), capture_output=True, text=True, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", **environment}, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return [part.splitlines() for part in done.stdout.split(":::\n")[:-1]]


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """What Host.java wrote: (H, W, 3)."""
    numbers = np.fromfile(path, ">u4")
    argb = numbers[2:].reshape(numbers[1], numbers[0])
    assert (argb >> 24 == 255).all()
    return np.stack([argb >> 16 & 255, argb >> 8 & 255, argb & 255], axis=-1).astype(np.uint8)
