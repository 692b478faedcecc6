"""What target 'coreml' refuses before anything is converted, by site name or setting."""

from __future__ import annotations

from dq_toolchain.backends.common.checks import check_activation_bits, check_float_operations, check_kinds
from dq_toolchain.backends.common.fp16_range import check_known
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact

HELD = ("conv1d", "conv2d", "linear", "attention")
"""Kinds of sites with integers."""
KEEP = "calibrate with keep_float for it (--keep-float {layer}), or export for target 'tensorrt'"


def check_supported(artifact: Artifact, settings: Settings) -> None:
    """Raise BackendError for the first site that an ML Program cannot hold in integers, or settings that exclude each other."""
    check_activation_bits(artifact, "coreml")
    check_float_operations(artifact, "coreml")
    check_kinds(artifact, "coreml", HELD, KEEP)
    if settings.precision == "fp16":
        check_known(artifact, "coreml")
    for site in artifact.sites:
        if site.kind == "attention" and settings.layout == "neural-engine":
            raise BackendError(
                f"layout 'neural-engine' holds no integers at attention products, got site {site.name}; "
                'export with --layout plain, or calibrate with [quantize] attention = "float"'
            )
    if settings.ios == 17 and settings.step_groups_as == "methods":
        raise BackendError(
            "a package for iOS 17 has one function, step groups need one each; add --step-groups-as input, or "
            "export for iOS 18 or 26"
        )
    if settings.ios == 17 and settings.lut:
        raise BackendError("tables of integers need iOS 18 or 26, got 17; leave --lut out")
    if settings.step_groups_as == "input" and settings.quantize_outputs:
        raise BackendError(
            "scales that are an input reach the inputs of layers only; leave --step-groups-as input or --quantize-outputs out"
        )
    if settings.lut and not any(site.weight_bits is not None and site.weight_bits <= 4 for site in artifact.sites):
        raise BackendError(
            "tables are for weights of 4 bits and fewer, this artifact has none; leave --lut out, or "
            "calibrate with --weight-bits 4"
        )
