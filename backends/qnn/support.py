"""What target 'qnn' refuses before anything is exported, by site name, with the flags of ``calibrate`` that help."""

from __future__ import annotations

import torch
from torch import nn

from dq_toolchain.backends.common.checks import check_float_operations, check_kinds, keeping_float
from dq_toolchain.backends.qnn.graph.numbers import numbers_of, offset
from dq_toolchain.backends.qnn.graph.sinusoids import left_in_network
from dq_toolchain.backends.qnn.graph.weights import weight_forms
from dq_toolchain.backends.qnn.proof.lint import INT32, SECOND_ZERO, why_not_integer
from dq_toolchain.backends.qnn.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.site import RIGHT_OPERANDS
from dq_toolchain.toolchain.quant.sites import weighted_layers

TARGET = "qnn"
BITS = {"a16": 16, "a8": 8}
FLAGS = {
    "a16": "--activation-bits 16 --outputs range --step-vectors",
    "a8": "--activation-bits 8 --outputs fitted --step-vectors",
}
"""Of ``calibrate``: what makes an artifact of each form."""
HELD = ("conv2d", "linear", "attention")
"""Kinds of sites that were seen to run in integers."""
KEEP = "calibrate with keep_float for it (--keep-float {layer})"


def check_supported(artifact: Artifact, settings: Settings) -> None:
    """Raise BackendError for an artifact of another form, or for the first site that no graph can hold in integers."""
    _check_form(artifact, settings.form)
    check_float_operations(artifact, TARGET)
    check_kinds(artifact, TARGET, HELD, KEEP)
    for index, site in enumerate(artifact.sites):
        zero_points = artifact.zero_point[:, index] + offset(site.bits)
        if site.operand in RIGHT_OPERANDS and bool((zero_points != SECOND_ZERO).any()):
            raise BackendError(
                f"zero_point must be 0 for the second operand of an attention product on target {TARGET!r}, got "
                f"{int(artifact.zero_point[:, index].max())} at site {site.name}; calibrate with --scheme symmetric"
            )
    _check_layers(artifact)
    _check_biases(artifact)


def _check_form(artifact: Artifact, form: str) -> None:
    """The artifact is of one of the forms, and of this one."""
    other = next((name for name in FLAGS if name != form and _fault(artifact, name) is None), None)
    fault = _fault(artifact, form)
    if fault is not None:
        elsewhere = f"export with --form {other}, or " if other is not None else ""
        raise BackendError(f"{fault}; {elsewhere}calibrate with {FLAGS[form]}")


def _fault(artifact: Artifact, form: str) -> str | None:
    wanted = BITS[form]
    for site in artifact.sites:
        allowed = 8 if site.operand in RIGHT_OPERANDS else wanted
        if site.bits != allowed:
            return f"activation bits must be {wanted} for form {form} of target {TARGET!r}, got {site.bits} at site {site.name}"
    results = any(site.is_result for site in artifact.sites)
    if form == "a16" and artifact.output_ranges is None:
        got = "it has fitted outputs" if results else "it has none"
        return f"form a16 of target {TARGET!r} needs ranges of the outputs of products in the artifact, {got}"
    if form == "a8" and not results:
        got = "it has their ranges" if artifact.output_ranges is not None else "it has none"
        return f"form a8 of target {TARGET!r} needs fitted outputs of products in the artifact, {got}"
    if artifact.step_vectors is None:
        return f"target {TARGET!r} takes step vectors, fp16 sinusoids of a timestep are wrong there; this artifact has none"
    return None


def _check_layers(artifact: Artifact) -> None:
    with torch.device("meta"):
        network = artifact.build_skeleton()
    for name in left_in_network(network):
        raise BackendError(
            f"{name} computes sinusoids of what is neither the timestep nor a size that is told to SDXL or PixArt, which fp16 on "
            f"target {TARGET!r} gets wrong; export for another target of `dq-toolchain targets`"
        )
    layers = dict(weighted_layers(network))
    why = {
        name: why_not_integer("Conv", tuple(layer.weight.shape))
        for name, layer in layers.items()
        if name in artifact.layers and isinstance(layer, nn.Conv2d)
    }
    odd = [name for name, text in why.items() if text]
    if odd:
        raise BackendError(
            f"{odd[0]}: {why[odd[0]]} on target {TARGET!r}; calibrate with {keeping_float(odd, artifact.layers)}"
        )


def _check_biases(artifact: Artifact) -> None:
    """A bias becomes int32 in steps of input scale times weight scale, which are very small where weights are."""
    numbers, forms = numbers_of(artifact), weight_forms(artifact)
    for layer, weights in artifact.layers.items():
        bias = artifact.float_parameters.get(f"{layer}.bias")
        if bias is None:
            continue
        smallest = numbers[f"{layer}:input"].scale.min().to(torch.float64)
        steps = float((bias.abs() / (smallest * forms[layer].scale(weights).to(torch.float64))).max())
        if steps >= INT32:
            raise BackendError(
                f"{layer} has weights so small beside its bias that the bias is {steps:.3g} steps, in int32 fit {INT32:.3g}; "
                f"{KEEP.format(layer=layer)}"
            )
