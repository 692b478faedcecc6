"""Hessians of the network's output with respect to a layer's weights: an input counts as much as an error there moves the output.

A layer that is rounded for its own output alone takes all places of an image, and all channels, for equally important. Here an
input is weighted by the squared derivative of the network's output there, summed over the layer's channels: GuidedQuant (Kim et
al. 2025, https://arxiv.org/abs/2505.07004), which takes the derivative of a language model's loss.

Ours: the derivative along random signs v, since E (v' J dW)^2 = |J dW|^2 (Hutchinson 1990); and evaluations count alike, each
divided by what rounding all layers does to its output. With guidance a few of them would otherwise decide alone. GuidedQuant has
several Hessians for a layer, of groups of output channels; four took twice the time and gained nothing once rounding was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.blocks.hessians import POSITIONS, add_products, zeros_of
from dq_toolchain.calibrate.blocks.second_order import groups_of, input_patches
from dq_toolchain.calibrate.work.seeds import hash_seed
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.layers import Layer
from dq_toolchain.toolchain.sampler.transfer import to_device


def guided_hessians_of(
    network: nn.Module,
    layers: Mapping[str, Layer],
    part: Sequence[str],
    noise: Mapping[str, Tensor],
    rows: Evaluations,
    device: torch.device,
    seed: int,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, list[Tensor]]:
    """Run the network over rows, forward and back, one at a time. It is left as it was, without gradients.

    Args:
        layers: all that are rounded, by name. part: those of them whose Hessians are wanted; the others weigh rows as well.
        noise: layer -> (), mean square of an integer step; only their ratios matter.
        rows: on the CPU.
        advance: told of each row that is done.
    Returns:
        layer -> its blocks, (groups, columns, columns) float32 on the device; zeros where a layer moves no output.
    """
    found = {name: zeros_of(layers[name], device) for name in part}
    calls: list[_Call] = []
    with hooks(_watched(layers, calls, device)):
        for number, row in enumerate(rows.batches(1)):
            on_device, generator = row.to(device), torch.Generator().manual_seed(hash_seed(seed, number))
            with torch.enable_grad():
                out = call_network(network, on_device.sample, on_device.timestep, on_device.keywords)
            signs = (torch.randint(0, 2, out.shape, generator=generator) * 2 - 1).float()
            torch.autograd.backward(out, to_device(signs, device).to(out.dtype))
            drawn = [_Drawn.of(layers[call.name], call, generator) for call in calls]
            calls.clear()
            effect = torch.stack([noise[each.name] * each.power() for each in drawn]).sum()
            for each in drawn:
                if each.name in found:
                    add_products(found[each.name], layers[each.name], each.weighted(effect))
            advance(1)
    return found


def _watched(layers: Mapping[str, Layer], calls: list[_Call], device: torch.device) -> Iterator[RemovableHandle]:
    """Hooks that note a call of a layer when the backward pass comes by."""

    def leave(name: str, _layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():  # a pass that activation checkpointing will repeat
            return None
        if not out.requires_grad:  # the first layers have inputs of which nobody asks the gradient
            out = out.detach().requires_grad_(True).clone()
        x = args[0].detach()
        out.register_hook(lambda gradient: calls.append(_Call(name, x, gradient)))
        return out

    for name, layer in layers.items():
        yield layer.register_forward_hook(partial(leave, name))


class _Call(NamedTuple):
    """``x``: a layer's input. ``gradient``: of v' f, the network's output, with respect to what the layer gives."""

    name: str
    x: Tensor
    gradient: Tensor


class _Drawn(NamedTuple):
    """Of one call: inputs of R outputs (R, groups, K), squared derivatives summed over a group's channels (R, groups), and of how
    many outputs each of the R stands."""

    name: str
    patches: Tensor
    squares: Tensor
    share: float

    @classmethod
    def of(cls, layer: Layer, call: _Call, generator: torch.Generator) -> _Drawn:
        """``POSITIONS`` outputs at most; those of an image are much alike."""
        patches = input_patches(layer, call.x.float()).flatten(0, 1)
        channels = call.gradient.float()
        channels = channels.flatten(2).transpose(1, 2) if isinstance(layer, nn.Conv1d | nn.Conv2d) else channels
        channels = channels.reshape(len(patches), groups_of(layer), -1)
        outputs = len(patches)
        if outputs > POSITIONS:
            chosen = torch.randperm(outputs, generator=generator)[:POSITIONS].to(patches.device)
            patches, channels = patches[chosen], channels[chosen]
        return cls(call.name, patches, channels.square().sum(2), outputs / len(patches))

    def power(self) -> Tensor:
        """() float32: |J dW|^2 for independent dW of power 1, by the outputs that were drawn."""
        return self.share * (self.patches.square().sum(2) * self.squares).sum()

    def weighted(self, effect: Tensor) -> Tensor:
        """(groups, R, K) whose products are summed; zeros where the evaluation's ``effect`` is."""
        scale = torch.where(effect > 0, self.squares / effect, 0.0).sqrt()
        return (self.patches * scale[..., None]).transpose(0, 1)
