"""A network in which only some of an artifact's errors are made: what each source contributes can be measured alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dq_toolchain.calibrate.network.sharing import with_shared_tensors
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.attention import ATTENTION_OPERANDS, PRODUCT_OPERANDS, ProductAttnProcessor
from dq_toolchain.toolchain.quant.layers import Layer, operation_of
from dq_toolchain.toolchain.quant.qparams import activation_type, qparams_to_range
from dq_toolchain.toolchain.quant.sites import attention_layers, weighted_layers
from dq_toolchain.toolchain.simulation.network import ActivationTable, StepGroupSwitch

Source = Literal["all", "weights", "activations", "clipping", "attention"]
"""all: the simulation. weights: integer weights and fitted biases, activations in float. activations: all sites quantized, FP32
weights. clipping: values beyond the ranges of sites are cut and nothing is rounded. attention: the attention products alone."""
SOURCES: tuple[Source, ...] = get_args(Source)
Operation = Callable[[Tensor], Tensor]


def sources_of(artifact: Artifact) -> tuple[Source, ...]:
    """Those that the artifact has: attention products are sites only on request."""
    has = any(site.kind == "attention" for site in artifact.sites)
    return tuple(source for source in SOURCES if has or source != "attention")


class PartlyQuantized(nn.Module):
    """The FP32 network with one source of an artifact's errors; call it like the diffusers network it replaces.

    Args:
        fp32: what the artifact was made from, splits and smoothing applied; its tensors are shared.
    """

    def __init__(self, artifact: Artifact, fp32: nn.Module, source: Source) -> None:
        super().__init__()
        self.switch, self.group_of_step = StepGroupSwitch(), artifact.group_of_step
        self.inner = with_shared_tensors(fp32)
        device = next(fp32.parameters()).device
        operations = {
            site.name: _operation(
                ActivationTable(
                    site.name, artifact.scale[:, i], artifact.zero_point[:, i], activation_type(site.bits), self.switch
                ).to(device),
                source,
            )
            for i, site in enumerate(artifact.sites)
            if source in ("all", "activations", "clipping") or (source == "attention" and site.kind == "attention")
        }
        for name, layer in list(weighted_layers(self.inner)):
            if name in artifact.layers:
                self.inner.set_submodule(name, _layer(artifact, name, layer, operations, source in ("all", "weights")))
        processor = ProductAttnProcessor(_product)
        for name, attention in attention_layers(self.inner):
            if f"{name}:q" in operations:
                attention.operations = {  # type: ignore[assignment]  # a plain dict, read by _product
                    operand: operations.get(f"{name}:{operand}", _same)
                    for operand in (*ATTENTION_OPERANDS, *PRODUCT_OPERANDS)
                }
                attention.set_processor(processor)

    def set_step(self, k: int) -> None:
        """Switch to the step group of network call k."""
        self.switch.current = self.group_of_step[k]

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False, **keywords: Tensor) -> tuple[Tensor]:
        """Keywords flat, as ``call_network`` takes them; always a tuple."""
        return (call_network(self.inner, sample, timestep, keywords),)


class _Layer(nn.Module):
    def __init__(
        self, layer: Layer, weight: Tensor, bias: Tensor | None, quantize: Operation, result: Operation
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.operation = weight, bias, operation_of(layer)
        self.quantize, self.result = quantize, result

    def forward(self, x: Tensor, *unused: object) -> Tensor:
        return self.result(self.operation(self.quantize(x), self.weight, self.bias))


def _layer(
    artifact: Artifact, name: str, layer: Layer, operations: dict[str, Operation], integer_weights: bool
) -> _Layer:
    weight, bias = layer.weight, layer.bias
    if integer_weights:
        weight = artifact.layers[name].dequantized().to(weight.device)
        bias = None if bias is None else artifact.float_parameters[f"{name}.bias"].to(bias.device)
    quantize, result = (operations.get(f"{name}:{operand}", _same) for operand in ("input", "output"))
    return _Layer(layer, weight, bias, quantize, result)


def _operation(table: ActivationTable, source: Source) -> Operation:
    if source != "clipping":
        return table.fake
    ends = torch.stack(qparams_to_range(table.scale, table.zero_point, table.kind), dim=1).tolist()
    return lambda x: x.clamp(*ends[table.switch.current])


def _same(x: Tensor) -> Tensor:
    return x


def _product(attention: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
    first, second = (attention.operations[operand] for operand in PRODUCT_OPERANDS[which])
    result: Operation = attention.operations[which]
    return result(torch.bmm(first(left), second(right)))
