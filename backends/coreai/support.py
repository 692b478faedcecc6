"""What target 'coreai' refuses before anything is converted, by site name or setting."""

from __future__ import annotations

from dq_toolchain.backends.common.qdq.support import check_sites
from dq_toolchain.backends.coreai.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact


def check_supported(artifact: Artifact, settings: Settings) -> None:
    """Raise BackendError for the first site that an .aimodel cannot hold in integers, or settings that exclude each other.

    Weights with a scale per block of input channels are wrong on the Neural Engine without any error (apple/coreai-models
    #279): they are refused in its layout.
    """
    check_sites(artifact, settings, "coreai", "export for a target that `dq-toolchain targets` lists with it")
    if settings.layout == "neural-engine":
        for name, weights in artifact.layers.items():
            if weights.weight_scale.numel() not in (1, len(weights.weight_q)):
                raise BackendError(
                    f"{name} has a weight scale per block, which the Neural Engine computes wrongly without an error "
                    "(apple/coreai-models #279); calibrate with a scale per output channel, or export with --layout plain"
                )
