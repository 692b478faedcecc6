"""Step groups converted one by one and merged by coremltools: for programs that cannot be copied and patched."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from dq_toolchain.backends.common.qdq.export import MAIN, function_name
from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.coreml.vendor import NOISE, coremltools


def merge(packages: Sequence[Path], out: Path) -> None:
    """One package with a function per step group; equal weights are stored once. ``out`` is replaced.

    Args:
        packages: of one function each, in the order of the step groups.
    """
    descriptor = coremltools().utils.MultiFunctionDescriptor()
    for group, package in enumerate(packages):
        descriptor.add_function(str(package), MAIN, function_name(group))
    descriptor.default_function_name = function_name(0)
    shutil.rmtree(out, ignore_errors=True)
    with quiet(NOISE):
        coremltools().utils.save_multifunction(descriptor, str(out))
