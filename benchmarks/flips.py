"""A discrete choice after a fit: integers flipped by the gradient of an error, kept where whole runs of the sampler improve."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.step_sums import Ground
from dq_toolchain.calibrate.multistep.objective import final_error
from dq_toolchain.calibrate.network.fake_quant import WeightQuantizer
from dq_toolchain.toolchain.sampler.rollout import rollout

TRAJECTORIES, JUDGES = 48, 24
"""That the gradient is taken on; that decide."""
SHARES = (0.01, 0.001, 0.0001)
"""Of a layer's weights that are flipped at once, at most: the largest first, until one improves."""
NEAR = 0.25
"""Only weights that are at least so far, in integer steps, from their integer on the side of the other one."""
BEYOND = 1e-3
"""How far beyond the boundary, in integer steps, a flipped weight is left."""
GROUPS = 7
"""Layers are tried in so many groups, in the order of what the gradient promises."""


def flip(ground: Ground, random: torch.Generator, share: float) -> tuple[int, int, int]:
    """Flips in place, chosen by the gradient of share * ||sum_k a[k] d[k]||^2 + (1 - share) * sum_k ||a[k] d[k]||^2.

    Returns:
        Passes; groups of layers that kept flips; integers flipped in them.
    """
    layers, calls = ground.network.layers, ground.prepared.context.table.calls
    _gradient(ground, random, share)
    found = {name: _candidates(layer.weight_quantizer) for name, layer in layers.items()}
    order = sorted(layers, key=lambda name: float(found[name].promised.sum()))
    size = -(-len(order) // GROUPS)
    best, tries, kept, flipped = _judged(ground), 1, 0, 0
    for begin in range(0, len(order), size):
        for part in SHARES:
            moves = {name: found[name].best(part) for name in order[begin : begin + size]}
            offsets = {name: offset_of(layers[name].weight_quantizer) for name in moves}
            before = {name: offset.detach().clone() for name, offset in offsets.items()}
            _put(offsets, {name: before[name] + move for name, move in moves.items()})
            error, tries = _judged(ground), tries + 1
            if error < best:
                best, kept = error, kept + 1
                flipped += sum(int(move.count_nonzero()) for move in moves.values())
                break
            _put(offsets, before)
    return calls * (2 * TRAJECTORIES + JUDGES * tries), kept, flipped


@torch.no_grad()
def _put(offsets: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, offset in offsets.items():
        offset.copy_(values[name])


def offset_of(quantizer: WeightQuantizer) -> Tensor:
    assert quantizer.offset is not None  # rounding is learned here
    return quantizer.offset


def _gradient(ground: Ground, random: torch.Generator, share: float) -> None:
    """Into ``offset.grad``, which straight-through rounding makes the gradient of the integer."""
    network, gain, calls = ground.network, ground.gain, ground.prepared.context.table.calls
    denoiser, latents, outputs = ground.drawn(random, TRAJECTORIES)
    for parameter in network.parameters():
        parameter.grad = None
    with network.frozen_weights(), torch.no_grad():
        errors = torch.stack([denoiser(latents[k], k) for k in range(calls)]) - outputs
    total = torch.einsum("k,k...->...", gain, errors)
    powers = torch.einsum("k,ks->s", gain.square(), errors.flatten(2).square().sum(2))
    root = (share * total.flatten(1).square().sum(1) + (1 - share) * powers).sqrt().view(-1, *[1] * (total.dim() - 1))
    with network.weights_once():
        for k in range(calls):
            denoiser(latents[k], k).backward(gain[k] * (share * total + (1 - share) * gain[k] * errors[k]) / root)


@dataclass(frozen=True)
class Candidates:
    """Of a layer's weights: what takes the offset to the other integer, and what the gradient promises of it, at most 0."""

    move: Tensor
    promised: Tensor

    def best(self, share: float) -> Tensor:
        """Moves of so large a share of the weights, those that promise most; 0 for the others."""
        chosen = self.promised.flatten().topk(max(1, int(share * self.promised.numel())), largest=False).indices
        mask = torch.zeros_like(self.promised).flatten()
        mask[chosen] = 1.0
        return self.move * mask.view_as(self.move) * (self.promised < 0)


@torch.no_grad()
def _candidates(quantizer: WeightQuantizer) -> Candidates:
    offset, ends = offset_of(quantizer), (quantizer.kind.qmin, quantizer.kind.qmax)
    assert offset.grad is not None
    value = quantizer.ratio + offset
    integer = value.round().clamp(*ends)
    side = (value - integer).sign()
    move = side * (0.5 + BEYOND) - (value - integer)
    other = integer + side
    allowed = ((value - integer).abs() > NEAR) & ((offset + move).abs() <= 0.5) & (other == other.clamp(*ends))
    return Candidates(move, (torch.where(allowed, offset.grad * side, 0.0)).clamp(max=0.0))


@torch.no_grad()
def _judged(ground: Ground) -> float:
    """``final_error`` of trajectories that are not fitted."""
    context, rows = ground.prepared.context, torch.arange(ground.fitted, ground.fitted + JUDGES)
    network = ground.network
    with network.frozen_weights():
        denoiser = context.denoiser(network, context.samples.select(rows), network.set_step)
        final = rollout(context.table, denoiser, ground.prepared.targets.latents[0, rows])[-1]
    return final_error(final, ground.prepared.targets.latents[-1, rows])
