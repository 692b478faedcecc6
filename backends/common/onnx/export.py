"""The network as an ONNX graph in float, before any integer is put into it: a plain export of the skeleton.

The weights of integer layers are placeholders that take no memory; a target's rewriter replaces them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.call import OUTPUT, Call
from dq_toolchain.backends.common.onnx.libraries import NOISE, exporter
from dq_toolchain.backends.common.onnx.types import widen_concatenations
from dq_toolchain.backends.common.onnx.without_effect import remove_squeezes
from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.models.architectures import call_network, fix_positions
from dq_toolchain.toolchain.quant.attention import ProductAttnProcessor
from dq_toolchain.toolchain.quant.sites import attention_layers, weighted_layers
from dq_toolchain.toolchain.quant.step_vectors import take_vectors_as

PREFIX = "unet."
"""Of every name that comes from the network."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


class _Program(nn.Module):
    """A network as a function of positional float32 tensors, whatever it computes in."""

    def __init__(self, network: nn.Module, keywords: Sequence[str], dtype: torch.dtype) -> None:
        super().__init__()
        self.unet, self.keywords, self.dtype = (
            network,
            tuple(keywords),
            dtype,
        )  # PREFIX: the attribute names the graph's nodes

    def forward(self, sample: Tensor, timestep: Tensor, *rest: Tensor) -> Tensor:
        keywords = {name: self._cast(x) for name, x in zip(self.keywords, rest, strict=True)}
        return call_network(self.unet, self._cast(sample), timestep, keywords).to(torch.float32)

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.dtype) if x.is_floating_point() else x


def placeholder(index: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A weight of one number that no other index has, which takes no memory."""
    return torch.tensor(index, dtype=torch.int16).view(torch.float16).to(dtype).expand(tuple(shape))


def skeleton(artifact: Artifact, precision: str) -> nn.Module:
    """The artifact's UNet with integer layers' weights of one number each, (out, in, ...) with strides 0; no two layers have
    the same one, or the exporter would merge them.

    Args:
        precision: of what is between the integer layers, "fp32" or "fp16". The sinusoids of the timestep are float32
            always, and so is a row of step vectors until they enter. Normalisations are not.
    """
    dtype = DTYPES[precision]
    network = nn.Module.to(artifact.build_skeleton(), dtype)  # diffusers' own method warns
    take_vectors_as(network, dtype)
    integer = (layer for name, layer in weighted_layers(network) if name in artifact.layers)
    for index, layer in enumerate(integer, 1):
        layer.weight = nn.Parameter(placeholder(index, layer.weight.shape, dtype), requires_grad=False)
    integers = {site.layer for site in artifact.sites if site.kind == "attention"}
    for name, attention in attention_layers(network):
        if name in integers:
            attention.set_processor(ProductAttnProcessor())
    return network


def export(
    artifact: Artifact,
    call: Call,
    precision: str,
    opset: int,
    prepare: Callable[[nn.Module], None] = lambda _network: None,
) -> Any:
    """The onnx_ir model of one call, batch 1: inputs and output named and float32, labels int64.

    Args:
        precision: see ``skeleton``. opset: version of ONNX's operators.
        prepare: changes the network in place before it is exported.

    Raises:
        BackendError: torch cannot export the network.
    """
    inputs = [port.name for port in call.inputs]
    network = skeleton(artifact, precision)
    fix_positions(network, call.sample, call.conditioning)
    prepare(network)
    program = _Program(network, tuple(call.conditioning), DTYPES[precision]).eval()
    return graph_of(program, call.arguments, inputs, [OUTPUT], opset)


def graph_of(
    program: nn.Module, arguments: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> Any:
    """The onnx_ir model of a module, with named inputs and outputs.

    Raises:
        BackendError: torch cannot export the module.
    """
    try:
        with quiet(NOISE), torch.no_grad():
            exported = exporter().export(
                program,
                arguments,
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # torch.onnx raises its own kinds and those of what it calls
        text = " ".join(str(error).split())
        raise BackendError(
            f"torch.onnx cannot export this network: {type(error).__name__} {text[:300]}; report it with the "
            "model's config.json"
        ) from error
    return widen_concatenations(remove_squeezes(exported.model))
