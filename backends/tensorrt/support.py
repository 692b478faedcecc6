"""What target 'tensorrt' refuses before anything is exported, by site name, and what it leaves in float."""

from __future__ import annotations

import torch
from torch import nn

from dq_toolchain.backends.common.checks import (
    check_activation_bits,
    check_float_operations,
    check_float_outputs,
)
from dq_toolchain.backends.common.fp16_range import check_known
from dq_toolchain.backends.tensorrt.proof.lint import why_float
from dq_toolchain.backends.tensorrt.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.layers import kind_of
from dq_toolchain.toolchain.quant.site import LayerKind
from dq_toolchain.toolchain.quant.sites import weighted_layers

OPERATIONS: dict[LayerKind, str] = {
    "conv1d": "Conv",
    "conv2d": "Conv",
    "conv_transpose1d": "ConvTranspose",
    "conv_transpose2d": "ConvTranspose",
    "linear": "Gemm",
}
"""Of ONNX."""


def check_supported(artifact: Artifact, settings: Settings) -> None:
    """Raise BackendError for the first site that no engine can hold in INT8, or settings that exclude each other."""
    if settings.jetpack == 6 and settings.graph_precision == "fp16":
        raise BackendError(
            "precision must be fp32 for JetPack 6 (TensorRT 10.3), got fp16; its builder picks fp16 kernels itself; "
            "leave --precision out, or add --jetpack 7 (TensorRT 10.13 and later)"
        )
    check_activation_bits(artifact, "tensorrt")
    check_float_outputs(artifact, "tensorrt")
    check_float_operations(artifact, "tensorrt")
    if settings.graph_precision == "fp16":
        check_known(artifact, "tensorrt")
    for index, site in enumerate(artifact.sites):
        if artifact.zero_point[:, index].any():
            raise BackendError(
                f"zero_point must be 0 for target 'tensorrt', got {int(artifact.zero_point[:, index].max())} at "
                f"site {site.name}; calibrate with --scheme symmetric"
            )
        if site.kind == "attention" and settings.step_groups_as == "input":
            raise BackendError(
                f"--step-groups-as input holds no integers at attention products, got site {site.name}; export with "
                '--step-groups-as methods, or calibrate with [quantize] attention = "float"'
            )


def in_float(artifact: Artifact) -> dict[str, str]:
    """Layers for which there is no INT8 kernel, with the reason. They compute in float on the same integers."""
    with torch.device("meta"):
        layers = {name: layer for name, layer in weighted_layers(artifact.build_skeleton()) if name in artifact.layers}
    reasons = {}
    for name, layer in layers.items():
        groups = 1 if isinstance(layer, nn.Linear) else layer.groups
        why = why_float(OPERATIONS[kind_of(layer)], tuple(layer.weight.shape), groups)
        if why:
            reasons[name] = why
    return reasons
