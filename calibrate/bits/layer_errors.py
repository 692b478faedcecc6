"""What the integers of an artifact do to the end of the sampler, layer by layer: weights and activations apart.

To first order the error of the final latent is a sum over layers, J_w dW + sum over steps of J_x dx, where dW is what the
integers change in a layer's weight and bias, and dx what rounding its input does at each step. The same sweeps that tell weights
apart (``sensitivity``) give both: v' J_w is the gradient at the weight, v' J_x that at the layer's input, through this layer alone.

Samples differ by orders of magnitude in how far an error grows, so each run's terms are scaled to a sum of squares of 1: shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dq_toolchain.calibrate.bits.sensitivity import sweep
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS, ProductAttnProcessor
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.layers import TRANSPOSED, OutputFirst
from dq_toolchain.toolchain.quant.qparams import activation_type
from dq_toolchain.toolchain.quant.sites import attention_layers, weighted_layers
from dq_toolchain.toolchain.simulation.network import ActivationTable, StepGroupSwitch

Rounding = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What layers have of the error at the end: mean over runs of a term's square over the sum of all squares.

    Attributes:
        weights, activations: layer (or attention block) -> share; all of them sum up to 1. Each has a relative standard deviation
            of about sqrt(2 / runs).
        together: of weights, of activations: power of the sum of terms over the sum of their powers. 1: layers are independent;
            below: they cancel out, as a fit makes them; above: they add up.
        multiplications: layer -> of one network call and one sample; also of layers in float.
    """

    weights: Mapping[str, float]
    activations: Mapping[str, float]
    together: tuple[float, float]
    multiplications: Mapping[str, int]


def measure_shares(
    artifact: Artifact,
    context: Context,
    samples: Samples,
    checkpoint: CheckpointFile,
    advance: Advance = lambda n=1: None,
) -> Shares:
    """The shares of every layer of an artifact, on FP32's own run of each sample. The FP32 network is left as it was.

    Args:
        context: of the model that the artifact was made from, with the same layers.
        checkpoint: of the samples that are done.
    """
    saved = checkpoint.load()
    found = [] if saved is None else [*saved[0]["terms"]]
    advance(len(found))
    switch = StepGroupSwitch()
    group_of_step = artifact.group_of_step

    def set_step(k: int) -> None:
        switch.current = group_of_step[k]

    taps = _Taps(artifact, context.device, switch)
    with taps.on(context.network):
        for probe in range(len(found), len(samples)):
            taps.clear()
            sweep(context, samples, probe, set_step)
            found.append(read_on_host(taps.read(), "errors of layers"))
            advance(1)
            if checkpoint.due or len(found) == len(samples):
                checkpoint.save({"terms": torch.stack(found)}, {})
    terms = torch.stack(found)
    terms = terms / terms.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    names, parts = taps.names, terms.split([len(each) for each in taps.names], dim=1)
    weights, activations = (
        dict(zip(each, part.square().mean(0).tolist(), strict=True)) for each, part in zip(names, parts, strict=True)
    )
    together = [float(part.sum(1).square().sum() / part.square().sum().clamp_min(1e-300)) for part in parts]
    return Shares(
        weights=weights,
        activations=activations,
        together=(together[0], together[1]),
        multiplications=taps.multiplications,
    )


class _Taps:
    """Takes v' J dW and v' J dx wherever a backward pass comes by, summed up over its steps."""

    def __init__(self, artifact: Artifact, device: torch.device, switch: StepGroupSwitch) -> None:
        self.artifact = artifact
        self.names = ([*artifact.layers], [*dict.fromkeys(site.layer for site in artifact.sites)])
        self.sums = [
            {name: torch.zeros((), dtype=torch.float64, device=device) for name in names} for names in self.names
        ]
        self.multiplications: dict[str, int] = {}
        self.anchor = torch.zeros((), device=device, requires_grad=True)
        self.tables = {
            site.name: ActivationTable(
                site.name, artifact.scale[:, i], artifact.zero_point[:, i], activation_type(site.bits), switch
            ).to(device)
            for i, site in enumerate(artifact.sites)
        }

    def clear(self) -> None:
        for sums in self.sums:
            for value in sums.values():
                value.zero_()

    def read(self) -> Tensor:
        """(weights, then activations) float64."""
        return torch.stack([value for sums in self.sums for value in sums.values()])

    @contextmanager
    def on(self, network: nn.Module) -> Iterator[None]:
        """Gradients are taken inside, and none is kept."""
        layers = dict(weighted_layers(network))
        learned = [
            (name, parameter, kind)
            for name in self.artifact.layers
            for kind, parameter in layers[name].named_parameters(recurse=False)
        ]
        with ExitStack() as stack:
            for _, parameter, _ in learned:
                parameter.requires_grad_(True)
                stack.callback(parameter.requires_grad_, False)
            stack.enter_context(
                hooks(layer.register_forward_hook(partial(self._count, name)) for name, layer in layers.items())
            )
            stack.enter_context(
                hooks(
                    layers[name].register_forward_pre_hook(partial(self._enter, name)) for name in self.artifact.layers
                )
            )
            stack.enter_context(
                hooks(
                    layers[site.layer].register_forward_hook(partial(self._leave, site.layer))
                    for site in self.artifact.sites
                    if site.operand == "output"
                )
            )
            stack.enter_context(
                hooks(
                    p.register_post_accumulate_grad_hook(partial(self._take, name, kind)) for name, p, kind in learned
                )
            )
            stack.enter_context(self._products(network))
            yield

    def _tapped(self, layer: str, operand: str, x: Tensor) -> Tensor:
        table = self.tables.get(f"{layer}:{operand}")
        if table is None or not torch.is_grad_enabled():
            return x
        tapped: Tensor = _Tap.apply(x, self.anchor, table.fake, self.sums[1][layer])  # type: ignore[no-untyped-call]
        return tapped

    def _enter(self, name: str, _layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._tapped(name, "input", args[0]), *args[1:])

    def _leave(self, name: str, _layer: nn.Module, _args: tuple[Any, ...], out: Tensor) -> Tensor:
        return self._tapped(name, "output", out)

    def _count(self, name: str, layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        if name not in self.multiplications:
            weight = layer.get_parameter("weight")
            if isinstance(layer, (OutputFirst, *TRANSPOSED)):
                places = args[0][0].numel() // layer.in_channels
            else:
                places = out[0].numel() // len(weight)
            self.multiplications[name] = places * weight.numel()

    def _take(self, name: str, kind: str, parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        if kind == "weight":
            made = self.artifact.layers[name].dequantized().to(parameter.device)
        else:
            made = self.artifact.float_parameters[f"{name}.{kind}"].to(parameter.device)
        self.sums[0][name] += torch.dot((made - parameter.detach()).flatten(), gradient.flatten())

    @contextmanager
    def _products(self, network: nn.Module) -> Iterator[None]:
        """Attention products with their operands and results tapped, where these are sites."""
        blocks = {block: name for name, block in attention_layers(network) if f"{name}:q" in self.tables}

        def product(block: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
            name, (first, second) = blocks[block], PRODUCT_OPERANDS[which]
            return self._tapped(
                name, which, torch.bmm(self._tapped(name, first, left), self._tapped(name, second, right))
            )

        before = {block: block.processor for block in blocks}
        for block in blocks:
            block.set_processor(ProductAttnProcessor(product))
        try:
            yield
        finally:
            for block, processor in before.items():
                block.set_processor(processor)


class _Tap(torch.autograd.Function):
    """The identity, whose backward pass adds gradient' (rounded x - x) to ``total``. ``anchor`` makes it part of every graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, rounding: Rounding, total: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rounding, ctx.total = rounding, total
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        ctx.total += torch.dot((ctx.rounding(x) - x).flatten().double(), gradient.flatten().double())
        return gradient, None, None, None
