"""A discrete choice after a fit: integers flipped by the gradient of an error, kept where whole runs of the sampler improve."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.step_sums import Ground
from dq_toolchain.calibrate.multistep.objective import final_error
from dq_toolchain.toolchain.sampler.rollout import rollout

TRAJECTORIES, JUDGES = 48, 24
"""That the gradient is taken on; that decide."""
SHARE = 0.01
"""Of a layer's weights that are flipped at once, at most."""
NEAR = 0.25
"""Only weights that are at least so far, in integer steps, from their integer on the side of the other one."""
GROUPS = 7
"""Layers are tried in so many groups, in the order of what the gradient promises."""


def flip(ground: Ground, random: torch.Generator, share: float) -> tuple[int, int, int]:
    """Flips in place, chosen by the gradient of share * ||sum_k a[k] d[k]||^2 + (1 - share) * sum_k ||a[k] d[k]||^2.

    Returns:
        Passes; groups kept; integers flipped in them.
    """
    network, calls = ground.network, ground.prepared.context.table.calls
    _gradient(ground, random, share)
    moves = {name: _moves(ground, name) for name in network.layers}
    promised = {name: float(gain) for name, (_, gain) in moves.items()}
    order = sorted(promised, key=promised.__getitem__)
    size = -(-len(order) // GROUPS)
    best, kept, flipped = _judged(ground), 0, 0
    for begin in range(0, len(order), size):
        names = order[begin : begin + size]
        offsets = {name: network.layers[name].weight_quantizer.offset for name in names}
        before = {name: offset.detach().clone() for name, offset in offsets.items() if offset is not None}
        with torch.no_grad():
            for name, offset in offsets.items():
                if offset is not None:
                    offset += moves[name][0]
        found = _judged(ground)
        if found < best:
            best, kept = found, kept + 1
            flipped += sum(int(moves[name][0].count_nonzero()) for name in names)
            continue
        with torch.no_grad():
            for name, offset in offsets.items():
                if offset is not None:
                    offset.copy_(before[name])
    return calls * (2 * TRAJECTORIES + JUDGES * (1 + len(range(0, len(order), size)))), kept, flipped


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


@torch.no_grad()
def _moves(ground: Ground, name: str) -> tuple[Tensor, Tensor]:
    """What to add to a layer's offsets, and what the gradient promises of it."""
    quantizer = ground.network.layers[name].weight_quantizer
    offset = quantizer.offset
    assert offset is not None
    assert offset.grad is not None
    value = quantizer.ratio + offset
    integer = value.round().clamp(quantizer.kind.qmin, quantizer.kind.qmax)
    side = (value - integer).sign()
    move = side * (0.5 + 1e-3) - (value - integer)
    other = integer + side
    allowed = ((value - integer).abs() > NEAR) & ((offset + move).abs() <= 0.5)
    allowed &= (other >= quantizer.kind.qmin) & (other <= quantizer.kind.qmax)
    gain = torch.where(allowed, offset.grad * side, torch.zeros_like(side)).clamp(max=0.0)
    count = max(1, int(SHARE * gain.numel()))
    chosen = gain.flatten().topk(count, largest=False).indices
    mask = torch.zeros_like(gain).flatten()
    mask[chosen] = 1.0
    mask = mask.view_as(gain) * (gain < 0)
    return move * mask, (gain * mask).sum()


@torch.no_grad()
def _judged(ground: Ground) -> float:
    """``final_error`` of trajectories that are not fitted."""
    context, rows = ground.prepared.context, torch.arange(ground.fitted, ground.fitted + JUDGES)
    network = ground.network
    with network.frozen_weights():
        denoiser = context.denoiser(network, context.samples.select(rows), network.set_step)
        final = rollout(context.table, denoiser, ground.prepared.targets.latents[0, rows])[-1]
    return final_error(final, ground.prepared.targets.latents[-1, rows])
