"""What every target demands of an artifact, and what its lowering demands of this machine."""

from __future__ import annotations

from dq_toolchain.toolchain.artifact import Artifact
from dq_toolchain.toolchain.errors import BackendError


def check_activation_bits(artifact: Artifact, target: str) -> None:
    """Raise BackendError for the first site of other than 8 bits."""
    for site in artifact.sites:
        if site.bits != 8:
            raise BackendError(f"activation bits must be 8 for target {target!r}, got {site.bits} at site {site.name}; "
                               "calibrate with 8-bit activations")


def check_float_operations(artifact: Artifact, target: str) -> None:
    """Raise BackendError for the first module that multiplies and that the quantizer does not support."""
    for operation in artifact.float_operations:
        if "not supported" in operation.reason:
            raise BackendError(f"{operation.layer} is a {operation.kind}, which target {target!r} does not hold in integers; "
                               "use a UNet without it")


def estimate(artifact: Artifact, library_mb: float, bytes_per_parameter: float, seconds_per_layer: float) -> str:
    """Memory and time that lowering will take, in words, from what was measured for the target.

    Args:
        library_mb: resident size of Python with the vendor's libraries, before any network is lowered.
    """
    tensors = (*(weights.weight_q for weights in artifact.layers.values()), *artifact.float_parameters.values())
    megabytes = library_mb + bytes_per_parameter * sum(tensor.numel() for tensor in tensors) / 2**20
    return f"about {megabytes:.0f} MB of memory and {5 + seconds_per_layer * len(artifact.layers):.0f} s"
