"""What target 'executorch' refuses before anything is lowered, by site name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from dq_toolchain.backends.common.checks import (
    check_activation_bits,
    check_float_operations,
    check_float_outputs,
    check_kinds,
    keeping_float,
)
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.layers import Layer, kind_of
from dq_toolchain.toolchain.quant.sites import weighted_layers

HELD = ("conv1d", "conv2d", "linear", "attention")
"""Kinds of sites that XNNPACK has integers for; attention is refused with what to do about it."""
OTHER = "export for target 'tensorrt', or for 'coreml' with keep_float"


def check_supported(artifact: Artifact, network: nn.Module, *, ranges_as_input: bool) -> None:
    """Raise BackendError for the first site that XNNPACK's int8 kernels cannot hold.

    Args:
        network: ``artifact.build_float_unet()``.
        ranges_as_input: XNNPACK takes no ranges at run time for convolutions with channel groups.
    """
    check_activation_bits(artifact, "executorch")
    check_float_outputs(artifact, "executorch")
    check_kinds(artifact, "executorch", HELD, OTHER)
    layers = dict(weighted_layers(network))
    for name in artifact.float_layers:
        if not isinstance(layers[name], nn.Conv1d | nn.Conv2d | nn.Linear):
            raise BackendError(
                f"{name} is a {kind_of(layers[name])}, which target 'executorch' does not run in float either (keep_float); "
                "export for target 'tensorrt' or 'coreml'"
            )
    for site in artifact.sites:
        if site.operand != "input":
            raise BackendError(
                f"{site.name}: target 'executorch' multiplies attention operands in float only; "
                'calibrate with attention = "float"'
            )
        if site.weight_bits is None or not 2 <= site.weight_bits <= 8:
            raise BackendError(
                f"weight bits must be 2-8 for target 'executorch', got {site.weight_bits} at site "
                f"{site.name}; calibrate again"
            )
    _check_convolutions({site.layer: layers[site.layer] for site in artifact.sites}, ranges_as_input)
    missing = sorted(set(layers) - {site.layer for site in artifact.sites} - set(artifact.float_layers))
    if missing:
        raise BackendError(f"{missing[0]} has no site and is not listed as kept in float; calibrate again")
    check_float_operations(artifact, "executorch")


def check_static_biases(artifact: Artifact) -> None:
    """Raise BackendError for the first layer whose bias is too large for the static form.

    There a bias is int32, in steps of input scale times weight scale, which are very small where weights are.
    """
    for layer, weights in artifact.layers.items():
        bias = artifact.float_parameters.get(f"{layer}.bias")
        if bias is None:
            continue
        smallest = artifact.scale[:, artifact.site_index(layer)].min().to(torch.float64)
        steps = (bias.abs() / (smallest * weights.weight_scale)).max()
        if steps >= 2**31:
            raise BackendError(
                f"{layer} has weights so small beside its bias that the bias is {float(steps):.3g} steps, "
                "in int32 fit 2.15e+09; export with --step-groups-as input, where biases are float"
            )


def _check_convolutions(layers: Mapping[str, Layer], ranges_as_input: bool) -> None:
    found = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Conv1d | nn.Conv2d)}
    grouped = [name for name, layer in found.items() if layer.groups != 1]
    if grouped and ranges_as_input:
        raise BackendError(
            f'{grouped[0]} has {found[grouped[0]].groups} channel groups; ExecuTorch says "XNNPACK only supports standard 2D '
            'convolutions for dynamic quantization", which is what ranges as an input are; export with --step-groups-as methods, '
            f"or calibrate with {keeping_float(grouped, layers)}"
        )
    for name, layer in found.items():
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise BackendError(
                f"{name} has padding {layer.padding!r} ({layer.padding_mode}), target 'executorch' takes "
                "numbers and zeros; use a UNet with such padding"
            )
