"""Target 'coreai': an .aimodel for iOS and macOS 27, one function per step group, executed here by Apple's own interpreter.

Nothing of Apple's libraries is imported before ``lower`` or ``open`` is called.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.backends.coreai.vendor import INSTALL, LIBRARIES

if TYPE_CHECKING:
    from dq_toolchain.backends.base import Execute, RunPart, Runtime, Say, TargetInfo
    from dq_toolchain.backends.coreai.settings import Settings
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.formats.bundle import Bundle
    from dq_toolchain.toolchain.parts.artifact import PartsArtifact


def describe() -> TargetInfo:
    """Facts about the target, without importing Apple's libraries."""
    from dq_toolchain.backends.base import TargetInfo, installed_version

    return TargetInfo(
        name="coreai", library=LIBRARIES[0], version=installed_version(*LIBRARIES), install=INSTALL,
        schemes=("symmetric", "affine"), weight_bits=(2, 3, 4, 5, 6, 7, 8), activation_bits=(8,),
        verified="coreai-core 1.0.0b3, Linux: audited, executed by Apple's interpreter; not run on Apple hardware",
        forms=({"activation_bits": (8,), "scheme": ("symmetric", "affine"), "outputs": ("none", "range")},))  # fmt: skip


def lower(
    artifact: Artifact,
    artifact_folder: Path,
    out: Path,
    settings: Settings,
    say: Say,
    parts: PartsArtifact | None = None,
) -> Bundle:
    """Write the bundle folder; see ``lowering.lower``."""
    from dq_toolchain.backends.coreai import lowering

    return lowering.lower(artifact, artifact_folder, out, settings, say, parts)


def open_part(program: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None = None) -> RunPart:
    """What executes a text encoder or a decoder; see ``base.Backend``."""
    from dq_toolchain.backends.coreai import parts

    return parts.open_part(program, inputs, outputs, threads)


def methods(bundle: Bundle, bundle_folder: Path) -> Collection[str]:
    """What the program holds; see ``base.Backend``."""
    from dq_toolchain.backends.coreai.asset import function_names

    return function_names(bundle_folder / bundle.program)


def open(bundle: Bundle, bundle_folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    """What executes the bundle; see ``base.Backend``."""
    from dq_toolchain.backends.coreai.runtime.device import open_bundle

    return open_bundle(bundle, bundle_folder, threads)
