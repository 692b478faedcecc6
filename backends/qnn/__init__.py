"""Target 'qnn': Q/DQ graphs for the Hexagon NPU of Snapdragon chips, one per step group, with one context for all of them.

Nothing of onnx or of Qualcomm is imported before ``lower`` or ``open`` is called.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.backends.common.onnx.libraries import INSTALL, LIBRARIES

if TYPE_CHECKING:
    from dq_toolchain.backends.base import Execute, RunPart, Runtime, Say, TargetInfo
    from dq_toolchain.backends.qnn.settings import Settings
    from dq_toolchain.toolchain.checks import Check
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.formats.bundle import Bundle
    from dq_toolchain.toolchain.parts.artifact import PartsArtifact


def describe() -> TargetInfo:
    """Facts about the target, without importing its libraries."""
    from dq_toolchain.backends.base import TargetInfo, installed_version

    return TargetInfo(
        name="qnn",
        library=", ".join(LIBRARIES),
        version=installed_version(*LIBRARIES),
        install=INSTALL,
        schemes=("symmetric",),
        weight_bits=(2, 3, 4, 5, 6, 7, 8),
        activation_bits=(8, 16),
        verified="ONNX Runtime, x86-64 Linux: executed; Qualcomm's compiler and emulator: compiled, executed; not run on a phone",
        any_size=True,
        forms=(
            {"activation_bits": (16,), "outputs": ("range",), "step_vectors": (True,), "scheme": ("symmetric",)},
            {"activation_bits": (8,), "outputs": ("fitted",), "step_vectors": (True,), "scheme": ("symmetric",)},
        ),
    )


def lower(
    artifact: Artifact,
    artifact_folder: Path,
    out: Path,
    settings: Settings,
    say: Say,
    parts: PartsArtifact | None = None,
) -> Bundle:
    """Write the bundle folder; see ``lowering.lower``."""
    from dq_toolchain.backends.qnn import lowering

    return lowering.lower(artifact, artifact_folder, out, settings, say, parts)


def open_part(program: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None = None) -> RunPart:
    """What executes a text encoder or a decoder; see ``base.Backend``."""
    from dq_toolchain.backends.common.onnx import parts

    return parts.open_part(program, inputs, outputs, threads)


def methods(bundle: Bundle, bundle_folder: Path) -> Collection[str]:
    """What the program holds; see ``base.Backend``."""
    prefix, suffix = f"{bundle.program}/", ".onnx"
    return [name.removeprefix(prefix).removesuffix(suffix) for name in bundle.files
            if name.startswith(prefix) and name.endswith(suffix) and not name.endswith(NPU)]  # fmt: skip


NPU = ".npu.onnx"
"""Ends the name of a step group's graph for the NPU."""


def open(bundle: Bundle, bundle_folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    """What executes the bundle; see ``base.Backend``."""
    from dq_toolchain.backends.qnn.runtime.device import open_bundle

    return open_bundle(bundle, bundle_folder, threads)


def open_emulator(bundle: Bundle, bundle_folder: Path) -> tuple[Execute, Runtime]:
    """What executes the bundle on Qualcomm's emulator of the NPU; see ``base.OpenEmulator``."""
    from dq_toolchain.backends.qnn.htp.emulator import open_bundle

    return open_bundle(bundle, bundle_folder)


def device_checks(bundle: Bundle, bundle_folder: Path) -> Iterable[Check]:
    """What `doctor` asks about contexts and Qualcomm's library; see ``base.DeviceChecks``."""
    from dq_toolchain.backends.qnn import doctor

    return doctor.device_checks(bundle, bundle_folder)
