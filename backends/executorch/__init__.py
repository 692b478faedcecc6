"""Target 'executorch': PyTorch's own runtime with XNNPACK's int8 kernels; phones, boards, desktops, this machine.

Nothing of executorch is imported before ``lower`` or ``open`` is called.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.backends.executorch.vendor import INSTALL, LIBRARY

if TYPE_CHECKING:
    from dq_toolchain.backends.base import Execute, RunPart, Runtime, Say, TargetInfo
    from dq_toolchain.backends.executorch.settings import Settings
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.formats.bundle import Bundle
    from dq_toolchain.toolchain.parts.artifact import PartsArtifact


def describe() -> TargetInfo:
    """Facts about the target, without importing executorch."""
    from dq_toolchain.backends.base import TargetInfo, installed_version

    return TargetInfo(
        name="executorch",
        library=LIBRARY,
        version=installed_version(LIBRARY),
        install=INSTALL,
        schemes=("symmetric", "affine"),
        weight_bits=(2, 3, 4, 5, 6, 7, 8),
        activation_bits=(8,),
        verified="ExecuTorch 1.5.1, x86-64 Linux: executed, equal to the integer simulation; Arm64: emulated",
        forms=(
            {
                "activation_bits": (8,),
                "scheme": ("affine", "symmetric"),
                "attention": ("float",),
                "outputs": ("none", "range"),
            },
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
    from dq_toolchain.backends.executorch import lowering

    return lowering.lower(artifact, artifact_folder, out, settings, say, parts)


def open_part(program: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None = None) -> RunPart:
    """What executes a text encoder or a decoder; see ``base.Backend``."""
    from dq_toolchain.backends.executorch import parts

    return parts.open_part(program, inputs, outputs, threads)


def methods(bundle: Bundle, bundle_folder: Path) -> Collection[str]:
    """What the program holds; see ``base.Backend``."""
    from dq_toolchain.backends.executorch.runtime.methods import method_names

    return method_names(bundle_folder / bundle.program)


def open(bundle: Bundle, bundle_folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    """What executes the bundle; see ``base.Backend``."""
    from dq_toolchain.backends.executorch.runtime.sampler import open_bundle

    return open_bundle(bundle, bundle_folder, threads)
