"""What all these targets refuse before anything is converted, by site name or setting."""

from __future__ import annotations

from dq_toolchain.backends.common.checks import (
    check_activation_bits,
    check_float_operations,
    check_float_outputs,
    check_kinds,
)
from dq_toolchain.backends.common.fp16_range import check_known
from dq_toolchain.backends.common.qdq.settings import QDQSettings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact

HELD = ("conv1d", "conv2d", "linear", "attention")
"""Kinds of sites with integers."""
KEEP = "calibrate with keep_float for it (--keep-float {layer})"


def check_sites(artifact: Artifact, settings: QDQSettings, target: str, otherwise: str) -> None:
    """Raise BackendError for the first site that the program cannot hold in integers, or settings that exclude each other.

    Args:
        otherwise: what to do about a layer of a kind that it cannot hold, besides keeping it in float.
    """
    check_activation_bits(artifact, target)
    check_float_outputs(artifact, target)
    check_float_operations(artifact, target)
    check_kinds(artifact, target, HELD, f"{KEEP}, or {otherwise}")
    if settings.precision == "fp16":
        check_known(artifact, target)
    for site in artifact.sites:
        if site.kind == "attention" and settings.layout == "neural-engine":
            raise BackendError(
                f"layout 'neural-engine' holds no integers at attention products, got site {site.name}; "
                'export with --layout plain, or calibrate with [quantize] attention = "float"'
            )
    if settings.step_groups_as == "input" and settings.quantize_outputs:
        raise BackendError(
            "scales that are an input reach the inputs of layers only; leave --step-groups-as input or --quantize-outputs out"
        )
    if settings.lut and not any(site.weight_bits is not None and site.weight_bits <= 4 for site in artifact.sites):
        raise BackendError(
            "tables are for weights of 4 bits and fewer, this artifact has none; leave --lut out, or "
            "calibrate with --weight-bits 4"
        )
