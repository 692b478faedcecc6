"""What every target demands of an artifact."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.models.sizes import not_a_multiple


def check_activation_bits(artifact: Artifact, target: str) -> None:
    """Raise BackendError for the first site of other than 8 bits."""
    for site in artifact.sites:
        if site.bits != 8:
            raise BackendError(
                f"activation bits must be 8 for target {target!r}, got {site.bits} at site {site.name}; "
                "calibrate with --activation-bits 8"
            )


def check_float_outputs(artifact: Artifact, target: str) -> None:
    """Raise BackendError for the first result of a product that is quantized; smallest and largest values do no harm."""
    for site in artifact.sites:
        if site.is_result:
            raise BackendError(
                f"target {target!r} keeps the results of products in float, this artifact has integers at {site.name}; "
                'calibrate with [quantize] outputs = "none" or "range"'
            )


def check_float_operations(artifact: Artifact, target: str) -> None:
    """Raise BackendError for the first module that multiplies and that the quantizer does not support."""
    for operation in artifact.float_operations:
        if "not supported" in operation.reason:
            raise BackendError(
                f"{operation.layer} is a {operation.kind}, which target {target!r} does not hold in integers; "
                "use a network without it"
            )


def check_kinds(artifact: Artifact, target: str, held: Collection[str], remedy: str) -> None:
    """Raise BackendError for the first layer of a kind that the target's program has no integers for.

    Args:
        held: kinds of sites that it has. remedy: what to do about the layer ``{layer}``.
    """
    for site in artifact.sites:
        if site.kind not in held:
            raise BackendError(
                f"{site.layer} is a {site.kind}, which target {target!r} does not hold in integers; "
                f"{remedy.format(layer=site.layer)}"
            )


def keeping_float(wanted: Sequence[str], layers: Collection[str]) -> str:
    """The setting that keeps these layers in float and no other: by the ends of their names where only theirs have them.

    Args:
        layers: names of all layers that have integers.
    """
    patterns = dict.fromkeys(_pattern(name, wanted, layers) for name in wanted)
    return f"keep_float = {json.dumps(list(patterns))} (--keep-float)"


def _pattern(name: str, wanted: Collection[str], layers: Collection[str]) -> str:
    shared = f"*{name.rpartition('.')[2]}"
    others = [each for each in layers if each not in wanted]
    return name if any(fnmatchcase(each, form) for each in others for form in (shared, f"{shared}.*")) else shared


def check_size(artifact: Artifact, reference: Reference, target: str) -> None:
    """Raise BackendError for a latent that the target's program cannot bring back to its size, with sizes that it can."""
    fault = not_a_multiple(artifact.config, (reference.start.shape[-2], reference.start.shape[-1]))
    if fault is not None:
        raise BackendError(
            f"{fault}; target {target!r} can only double sides on the way back: set sample_size in the model's "
            "config.json and calibrate again, or export for a target that `dq-toolchain targets` lists with any size"
        )
