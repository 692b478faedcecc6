"""Fetches and unpacks the parts of the emulated Arm: Debian packages with apt-get and debootstrap, wheels with pip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dq_toolchain.toolchain.errors import BackendError

QEMU_SUITE, PYTHON_SUITE, PYTHON = "trixie", "bookworm", "3.11"
PINNED = ("torch", "executorch", "torchao", "numpy")
UNPINNED = (
    "sympy", "networkx", "jinja2", "fsspec", "filelock", "typing-extensions", "mpmath", "markupsafe", "pyyaml",
    "flatbuffers", "setuptools", "ruamel.yaml", "tabulate", "packaging",
)  # fmt: skip
"""What importing torch and the runtime needs; all that executorch requires would be far more."""
PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(39, 16, -1)))


def fetch_qemu(out: Path) -> None:
    """apt with lists of its own: the suite may be another than the system's, whose settings stay as they are."""
    lists = out / "lists"
    (lists / "partial").mkdir(parents=True)
    (out / "sources.list").write_text(f"deb {debian_mirror()} {QEMU_SUITE} main\n")
    options = {
        "Dir::Etc::SourceList": out / "sources.list", "Dir::Etc::SourceParts": "-", "Dir::State::Lists": lists,
        "Dir::Cache": out, "Acquire::Languages": "none", "APT::Sandbox::User": "",
    }  # fmt: skip
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    _run([*apt, "update", "--error-on=any"], out)
    _run([*apt, "download", "qemu-user"], out)
    package = next(out.glob("qemu-user_*.deb"))
    _unpack(package, out)
    for path in (package, *out.glob("*.bin")):
        path.unlink()
    shutil.rmtree(lists)


def fetch_root(out: Path) -> None:
    """debootstrap's first stage unpacks some packages and leaves the others; the second would run Arm programs."""
    as_root = [] if os.geteuid() == 0 else ["fakeroot"]
    _run(
        [
            *as_root,
            "debootstrap",
            "--arch=arm64",
            "--foreign",
            "--variant=minbase",
            "--include=python3,libgomp1",
            PYTHON_SUITE,
            str(out),
            debian_mirror(),
        ],
        out,
    )
    for package in sorted((out / "var/cache/apt/archives").glob("*.deb")):
        _unpack(package, out)
        package.unlink()
    shutil.rmtree(out / "dev")  # QEMU takes from the host what the tree lacks


def fetch_wheels(out: Path) -> None:
    """torch and the runtime, of the versions that are installed here."""
    _pip(out, "--no-deps", *(f"{name}=={installed(name)}" for name in PINNED), *UNPINNED)


def fetch_libraries(out: Path, wheels: Path) -> None:
    """On Arm, torch is built with CUDA: without its libraries it does not load, though none of them is used."""
    metadata = next(wheels.glob("torch-*.dist-info")) / "METADATA"
    text = metadata.read_text(encoding="utf-8")
    required = re.findall(r"^Requires-Dist: ((?:cuda-toolkit|nvidia-)[^;\s]*)", text, re.MULTILINE)
    if required:
        _pip(out, *required)


def debian_mirror() -> str:
    """DEBIAN_MIRROR, else where this system's apt gets Debian from. Raises BackendError: neither is there."""
    given = os.environ.get("DEBIAN_MIRROR")
    if given:
        return given
    row = "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)"
    rows = [line.split("|") for line in _run(["apt-get", "indextargets", "--format", row], Path()).splitlines()]
    found = [
        uri for origin, component, suite, uri in rows if (origin, component) == ("Debian", "main") and "-" not in suite
    ]
    if not found:
        raise BackendError("apt's sources name no Debian mirror; set DEBIAN_MIRROR to the address of one")
    return found[0]


def installed(name: str) -> str:
    """The version installed here, without what says for which device it was built."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError as error:
        raise BackendError(f"{name} is not installed; install it: pip install 'dq-toolchain[executorch]'") from error


def _pip(out: Path, *arguments: str) -> None:
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    _run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-cache-dir",
            "--target",
            str(out),
            "--only-binary=:all:",
            "--python-version",
            PYTHON,
            "--implementation",
            "cp",
            *platforms,
            *arguments,
        ],
        out,
    )


def _unpack(package: Path, out: Path) -> None:
    _run(["dpkg", "-x", str(package), str(out)], out)


def _run(command: list[str], folder: Path) -> str:
    """stdout. The text of an error is the first line by which the tool itself calls it one."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    except FileNotFoundError as error:
        raise BackendError(
            f"the setup needs {command[0]}, which is not on the path; install the package of that name "
            "and run the same command again"
        ) from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        said = next((line for line in lines if re.match(r"E(RROR)?: ", line)), (lines or ["it said nothing"])[-1])
        name = "pip" if command[0] == sys.executable else command[0]
        raise BackendError(
            f"{name} ended with status {done.returncode}: {said[:300]}; check the network and "
            "the mirror, then run the same command again"
        )
    return done.stdout
