"""What target 'coreml' refuses before anything is converted, by site name or setting."""

from __future__ import annotations

from dq_toolchain.backends.common.qdq.support import check_sites
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact


def check_supported(artifact: Artifact, settings: Settings) -> None:
    """Raise BackendError for the first site that an ML Program cannot hold in integers, or settings that exclude each other."""
    if settings.ios == 17 and settings.step_groups_as == "methods":
        raise BackendError(
            "a package for iOS 17 has one function, step groups need one each; add --step-groups-as input, or "
            "export for iOS 18 or 26"
        )
    if settings.ios == 17 and settings.lut:
        raise BackendError("tables of integers need iOS 18 or 26, got 17; leave --lut out")
    check_sites(artifact, settings, "coreml", "export for target 'tensorrt'")
