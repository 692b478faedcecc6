"""Sets up the emulated Arm once: QEMU, an arm64 Python, and the aarch64 wheels of the versions installed here.

Each part lies in a folder of its own that appears only when it is whole, so a setup that was interrupted goes on.
Nothing is installed into the system: packages are unpacked, and of the arm64 tree only Python runs, under QEMU.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dq_toolchain.toolchain.errors import BackendError
from scripts.arm64 import fetch

QEMU, OLDEST_QEMU = "qemu-aarch64", 10
"""Version 7 shows the host's /proc/cpuinfo, on which the runtime's look at the CPU crashes."""


@dataclass(frozen=True)
class Emulator:
    """Where the parts lie. ``qemu_version``: as QEMU says it, e.g. 10.0.13."""

    qemu: Path
    qemu_version: str
    root: Path
    wheels: Path
    libraries: Path

    def python(self, cpu: str) -> list[str]:
        """The command of the emulated Python; ``cpu`` is one of QEMU's names."""
        program = self.root / "usr" / "bin" / f"python{fetch.PYTHON}"
        return [str(self.qemu), "-cpu", cpu, "-L", str(self.root), str(program), "-s", "-P"]

    def environment(self) -> dict[str, str]:
        """Nothing of the host's environment: what it sets for its own Python and libraries is not for Arm."""
        folders = sorted({str(path.parent) for path in self.libraries.rglob("*.so*")})
        return {"PYTHONPATH": str(self.wheels), "LD_LIBRARY_PATH": ":".join(folders)}


def ready(folder: Path) -> Emulator | None:
    """The emulator, if ``folder`` holds all of it for the versions installed here."""
    folder = folder.resolve()
    qemu = _find_qemu(folder)
    parts = [folder / name for name in ("root", _wheels(), _libraries())]
    return Emulator(*qemu, *parts) if qemu and all(part.is_dir() for part in parts) else None


def set_up(folder: Path, say: Callable[[str], None]) -> Emulator:
    """Fetch what is missing in ``folder``.

    Args:
        say: called with a line per part.
    Raises:
        BackendError: a tool, the network or space is missing; the text says which.
    """
    done = ready(folder)
    if done is not None:
        return done
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    parts = [part for part in _parts(folder) if not (folder / part.name).is_dir()]
    needed, free = sum(part.gigabytes for part in parts), shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise BackendError(
            f"the setup still needs {needed:.1f} GB, {folder} has {free:.1f} GB free; choose another --folder"
        )
    for part in parts:
        say(f"fetching {part.title}")
        partial = folder / f"{part.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        part.fetch(partial)
        partial.rename(folder / part.name)
    done = ready(folder)
    if done is None:
        raise BackendError(
            f"{QEMU} of Debian {fetch.QEMU_SUITE} does not start here; install QEMU "
            f"{OLDEST_QEMU} or later, so that {QEMU} is on the path"
        )
    return done


@dataclass(frozen=True)
class _Part:
    """``gigabytes``: of disk that fetching it takes."""

    name: str
    title: str
    gigabytes: float
    fetch: Callable[[Path], None]


def _parts(folder: Path) -> list[_Part]:
    wheels = folder / _wheels()
    qemu = _Part("qemu", f"QEMU of Debian {fetch.QEMU_SUITE}, 70 MB", 0.5, fetch.fetch_qemu)
    return [
        *([] if _find_qemu(folder) else [qemu]),
        _Part("root", f"Python {fetch.PYTHON} of Debian {fetch.PYTHON_SUITE} for arm64, 80 MB", 0.5, fetch.fetch_root),
        _Part(wheels.name, "aarch64 wheels of torch and executorch, 0.6 GB", 2.0, fetch.fetch_wheels),
        _Part(
            _libraries(),
            "libraries that the aarch64 torch is linked with, 2 GB",
            3.0,
            lambda out: fetch.fetch_libraries(out, wheels),
        ),
    ]


def _find_qemu(folder: Path) -> tuple[Path, str] | None:
    """Path and version of a QEMU that starts and is not too old: the system's, else the one in ``folder``."""
    installed = shutil.which(QEMU)
    for place in (*([Path(installed)] if installed else []), folder / "qemu" / "usr" / "bin" / QEMU):
        try:
            said = subprocess.run([place, "--version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        match = re.search(r"version ((\d+)[\d.]*)", said)
        if match and int(match[2]) >= OLDEST_QEMU:
            return place, match[1]
    return None


def _wheels() -> str:
    return f"executorch-{fetch.installed('executorch')}-torch-{fetch.installed('torch')}"


def _libraries() -> str:
    return f"{_wheels()}-libraries"
