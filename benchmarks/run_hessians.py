"""Hessians of the finished sample with respect to a layer's weights, of the steps of a run apart and of their sum.

A weight's rounding error is the same at every step, so what it does to the finished sample is a sum over the steps. With x_k the
inputs of one output of a layer at step k, and g_k the derivative of v' x[N] with respect to what the layer gives there (v random
signs, E (v' J dW)^2 = |J dW|^2), the sum over steps has the Hessian of all k and l of <g_k, g_l> x_k x_l'; steps apart have that of
k = l alone. <,> sums over channels. Outputs at different places of an image are apart in both, as in ``guided_hessians``: their sum
in one run is nearly all chance. With guidance both halves of the batch belong to one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dq_toolchain.calibrate.bits.sensitivity import sweep
from dq_toolchain.calibrate.blocks.second_order import groups_of, input_patches
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.work.seeds import hash_seed
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.layers import Layer

PLACES = 24
"""Outputs of a layer that are looked at in one run, at most; the same at each step."""


@dataclass(frozen=True)
class Pair:
    """Of one layer: (groups, K, K) float32 each."""

    apart: Tensor
    together: Tensor


@dataclass
class _Seen:
    """Of one layer along one run: step -> inputs (B, P, groups, K) and derivatives (B, P, groups, channels)."""

    layer: Layer
    places: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    share: float = 1.0
    inputs: dict[int, Tensor] = field(default_factory=dict)
    slopes: dict[int, Tensor] = field(default_factory=dict)

    def look(self, k: int, x: Tensor, generator: torch.Generator) -> None:
        patches = input_patches(self.layer, x.float())
        if not len(self.places):
            self.places = torch.randperm(patches.shape[1], generator=generator)[:PLACES].to(x.device)
            self.share = patches.shape[1] / len(self.places)
        self.inputs[k] = patches[:, self.places].clone()

    def slope(self, k: int, gradient: Tensor) -> None:
        channels = gradient.float()
        is_image = isinstance(self.layer, nn.Conv1d | nn.Conv2d)
        channels = (
            channels.flatten(2).transpose(1, 2) if is_image else channels.reshape(len(channels), -1, channels.shape[-1])
        )
        self.slopes[k] = channels[:, self.places].reshape(*self.inputs[k].shape[:3], -1)

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Inputs (groups, P, N B, K) and derivatives (groups, P, N B, channels), step after step."""
        order = sorted(self.slopes)
        both = (torch.stack([values[k] for k in order]) for values in (self.inputs, self.slopes))
        x, g = (value.permute(3, 2, 0, 1, 4).flatten(2, 3) for value in both)
        return x, g


def run_hessians(
    context: Context,
    layers: Mapping[str, Layer],
    noise: Mapping[str, Tensor],
    samples: Samples,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Pair]:
    """Run each sample through the FP32 sampler and back. The network is left as it was.

    Runs count alike: each is divided by what rounding all layers, steps apart, does to its finished sample.

    Args:
        layers: of the FP32 network, which needs no gradients of its own. noise: layer -> (), mean square of an integer step.
        samples: on the CPU.
    """
    found = {name: Pair(_zeros(layer, context.device), _zeros(layer, context.device)) for name, layer in layers.items()}
    for number in range(len(samples)):
        seen = {name: _Seen(layer) for name, layer in layers.items()}
        generator, step = torch.Generator().manual_seed(hash_seed(context.seed, 2, number)), [0]
        with hooks(_watched(seen, step, generator)):
            sweep(context, samples, number, partial(step.__setitem__, 0))
        effect, halves = torch.zeros((), device=context.device), 1 if context.guidance == 1.0 else 2
        for name, each in seen.items():
            x, g = each.stacked()
            effect += noise[name] * each.share * (x.square().sum(3) * g.square().sum(3)).sum()
        for name, each in seen.items():
            x, g = each.stacked()
            _add(found[name], x, g, each.share / effect, halves)
        advance(1)
    return found


def _watched(seen: Mapping[str, _Seen], step: list[int], generator: torch.Generator) -> Iterator[RemovableHandle]:
    def leave(each: _Seen, _layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():  # the run itself, before it is gone back through
            return None
        if not out.requires_grad:  # what depends on the timestep alone, and the first step
            out = out.detach().requires_grad_(True).clone()
        k = step[0]
        each.look(k, args[0].detach(), generator)
        out.register_hook(partial(each.slope, k))
        return out

    for each in seen.values():
        yield each.layer.register_forward_hook(partial(leave, each))


def _add(pair: Pair, x: Tensor, g: Tensor, scale: Tensor, halves: int) -> None:
    """x, g: (groups, P, R, ...), R evaluations, those of a step side by side."""
    gram = scale * g @ g.transpose(2, 3)
    own = torch.block_diag(*[torch.ones(halves, halves)] * (gram.shape[-1] // halves)).to(gram.device)
    flat = x.flatten(1, 2)
    for total, weights in ((pair.apart, gram * own), (pair.together, gram)):
        total.baddbmm_(flat.transpose(1, 2), (weights @ x).flatten(1, 2))


def _zeros(layer: Layer, device: torch.device) -> Tensor:
    columns = layer.weight[0].numel()
    return torch.zeros((groups_of(layer), columns, columns), device=device)
