"""What `doctor` asks of a bundle for Snapdragon's NPU beside what it asks of all: graphs and contexts, Qualcomm's library here, and
the phone that is attached."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dq_toolchain.backends.qnn.phone import attached, phone_check
from dq_toolchain.backends.qnn.vendor import INSTALL_COMPILER, PINNED, WHEEL, compiler_version
from dq_toolchain.toolchain.checks import Check
from dq_toolchain.toolchain.disk.reading import read_json
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import REMEDY, Bundle

PLACEMENTS, BINARY = "placements.json", "steps.bin"
GLIBC = (2, 35)
"""Oldest that the wheel's libraries load with."""
ADDRESSES = 2**32
"""Bytes that a process on the NPU can address; what it needs beside the context comes on top."""


def device_checks(bundle: Bundle, folder: Path) -> Iterator[Check]:
    """doctor.contexts, doctor.compiler where Qualcomm's wheel is installed, and doctor.phone where adb reaches one; see
    ``base.DeviceChecks``."""
    try:
        placements = read_json(folder / PLACEMENTS, error=ArtifactError, remedy=REMEDY)
        contexts = placements.get("contexts", {})
        fault = _graphs_fault(bundle, placements) or _fault(bundle, contexts)
    except (ArtifactError, AttributeError, KeyError, TypeError) as error:
        contexts, fault = {}, f"{PLACEMENTS} is not as export writes it ({' '.join(str(error).split())[:120]})"
    text = fault or _told(contexts)
    yield Check("doctor.contexts", fault is None, None, text)
    phone = attached()
    if phone is not None:
        yield phone_check(phone, tuple(contexts))
    version = compiler_version()
    if version is not None:
        yield _compiler(version, platform.libc_ver())


def _graphs_fault(bundle: Bundle, placements: Mapping[str, Any]) -> str | None:
    missing = [name for name in placements.get("npu_graphs", ()) if name not in bundle.files]
    return f"{missing[0]}, a graph for the NPU, is not in the bundle; export again" if missing else None


def _fault(bundle: Bundle, contexts: Mapping[str, Any]) -> str | None:
    wanted = [f"{method}_ctx.onnx" for method in bundle.methods]
    for soc, context in contexts.items():
        missing = [name for name in (BINARY, *wanted) if f"{soc}/{name}" not in bundle.files]
        if missing or list(context["graphs"]) != wanted:
            held = f"{soc}/{missing[0]} is not in the bundle" if missing else f"{soc} has other graphs than the bundle"
            return f"{held}; export again with --soc {soc}"
        size = bundle.sizes.get(f"{soc}/{BINARY}", 0)
        if size >= ADDRESSES:
            return (
                f"the context for {soc} has {size / 2**30:.1f} GiB, a process on the NPU addresses {ADDRESSES / 2**30:.0f}; export "
                "an artifact with fewer step groups or 4-bit weights"
            )
    versions = {str(context["qairt"]) for context in contexts.values()}
    if len(versions) > 1:
        return f"contexts of {len(versions)} versions of QAIRT ({', '.join(sorted(versions))}); export again with --soc"
    return None


def _told(contexts: Mapping[str, Any]) -> str:
    if not contexts:
        return "no context for any chip: a phone needs one, export with --soc CHIP; on Linux the graphs are run"
    version = str(next(iter(contexts.values()))["qairt"]).removeprefix("v")
    return (
        f"contexts for {', '.join(contexts)} by QAIRT {version}: a phone needs Qualcomm's runtime of this version or a later one, "
        "a plugin from 2.5 on and Android 12 (docs/QNN.md, On the phone)"
    )


def _compiler(version: str, libc: tuple[str, str]) -> Check:
    name, number = libc
    old = name == "glibc" and tuple(int(part) for part in number.split(".")[:2]) < GLIBC
    if version != PINNED:
        text = f"{WHEEL} {version} is installed, graphs were checked with {PINNED}; install it: {INSTALL_COMPILER}"
    elif old:
        text = f"{WHEEL} needs glibc {GLIBC[0]}.{GLIBC[1]}, here is {number}; compile on a newer Linux"
    else:
        text = f"{WHEEL} {version} is installed: --check-build, --soc and run --emulator work here"
    return Check("doctor.compiler", version == PINNED and not old, None, text)
