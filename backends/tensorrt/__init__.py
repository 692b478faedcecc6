"""Target 'tensorrt': Q/DQ graphs for NVIDIA Jetson, one per step group, checked here without a GPU.

Nothing of onnx or TensorRT is imported before ``lower`` or ``run`` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.backends.tensorrt.vendor import INSTALL, LIBRARIES

if TYPE_CHECKING:
    from dq_toolchain.backends.base import Say, TargetInfo
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.formats.bundle import Bundle
    from dq_toolchain.toolchain.recipe.sections import Recipe


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
    )


def lower(artifact: Artifact, artifact_folder: Path, out: Path, recipe: Recipe, progress: Say) -> Bundle:
    """Write the bundle folder; see ``lowering.lower``."""
    from dq_toolchain.backends.tensorrt import lowering

    return lowering.lower(artifact, artifact_folder, out, recipe.tensorrt, progress)


def methods(bundle: Bundle, bundle_folder: Path) -> Collection[str]:
    """What the program holds; see ``base.Backend``."""
    prefix, suffix = f"{bundle.program}/", ".onnx"
    return [name.removeprefix(prefix).removesuffix(suffix) for name in bundle.files
            if name.startswith(prefix) and name.endswith(suffix)]  # fmt: skip


def run(
    bundle: Bundle,
    bundle_folder: Path,
    out: Path,
    seeds: int | None,
    threads: int | None,
    progress: Callable[[int, int], None],
) -> Path:
    """Execute the bundle and write the device report; see ``running.run``."""
    from dq_toolchain.backends.tensorrt.runtime import running

    return running.run(bundle, bundle_folder, out, seeds, threads, progress)
