"""Target 'tensorrt': Q/DQ graphs for NVIDIA Jetson, one per step group, checked here without a GPU.

Nothing of onnx or TensorRT is imported before ``lower`` or ``open`` is called.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.backends.common.onnx.libraries import LIBRARIES
from dq_toolchain.backends.tensorrt.vendor import INSTALL

if TYPE_CHECKING:
    from dq_toolchain.backends.base import Execute, RunPart, Runtime, Say, TargetInfo
    from dq_toolchain.backends.tensorrt.settings import Settings
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.formats.bundle import Bundle
    from dq_toolchain.toolchain.parts.artifact import PartsArtifact


def describe() -> TargetInfo:
    """Facts about the target, without importing its libraries."""
    from dq_toolchain.backends.base import TargetInfo, installed_version

    return TargetInfo(
        name="tensorrt",
        library=", ".join(LIBRARIES),
        version=installed_version(*LIBRARIES),
        install=INSTALL,
        schemes=("symmetric",),
        weight_bits=(2, 3, 4, 5, 6, 7, 8),
        activation_bits=(8,),
        verified="ONNX Runtime, x86-64 Linux: executed; TensorRT for RTX 1.7: compiled to INT8; not run on a Jetson",
        any_size=True,
        forms=({"activation_bits": (8,), "scheme": ("symmetric",), "outputs": ("none", "range")},),
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
    from dq_toolchain.backends.tensorrt import lowering

    return lowering.lower(artifact, artifact_folder, out, settings, say, parts)


def open_part(program: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None = None) -> RunPart:
    """What executes a text encoder or a decoder; see ``base.Backend``."""
    from dq_toolchain.backends.tensorrt.runtime import parts

    return parts.open_part(program, inputs, outputs, threads)


def methods(bundle: Bundle, bundle_folder: Path) -> Collection[str]:
    """What the program holds; see ``base.Backend``."""
    prefix, suffix = f"{bundle.program}/", ".onnx"
    return [name.removeprefix(prefix).removesuffix(suffix) for name in bundle.files
            if name.startswith(prefix) and name.endswith(suffix)]  # fmt: skip


def open(bundle: Bundle, bundle_folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    """What executes the bundle; see ``base.Backend``."""
    from dq_toolchain.backends.tensorrt.runtime.device import open_bundle

    return open_bundle(bundle, bundle_folder, threads)
