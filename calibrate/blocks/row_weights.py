"""Weights of calibration rows that are raised where a row's gradient helps the others (gradient-aligned calibration).

After "Gradient-Aligned Calibration for Post-Training Quantization of Diffusion Models" (ICLR 2026): softmax weights
on the rows, learned on two levels together with the reconstruction. There is no official code, so this is a
first-order reading of it, stated at ``RowWeights``; it costs nothing once calibration is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.sampler.transfer import to_device

TIMESTEP_GROUPS = 5
ALIGNMENT = 0.25
"""Weight of the other timestep groups: the sum over four of them counts as much as the validation rows."""
RATE = 0.1
LIMIT = 2.0
"""A row's weight stays within e^2 of a neutral one: rows are few, and no handful of them may decide alone."""
EVERY = 5
"""Iterations between two updates."""
STEP = 0.02
"""Largest change of a parameter in the finite difference; rounding variables live within about +-2.4."""


class RowWeights:
    """A logit per row; the weights of a batch are their softmax times the batch size.

    One inner gradient step on row i, with rate r, changes the validation loss by -r <grad L_i, grad L_val> to first
    order, so that the outer gradient in a row's weight is that product; with the alignment term the score is

        <grad L_i, grad L_val> + ALIGNMENT * <grad L_i, sum of grad L_g over the other timestep groups g>.

    Differs from the paper, as far as it is known to us: first order only; scores of a batch are centred and divided
    by their root mean square, logits are bounded, groups are equal shares of the distinct timesteps.
    """

    def __init__(self, timestep: Tensor, device: torch.device | None = None) -> None:
        """
        Args:
            timestep: (R,) float32 of all rows.
            device: where losses are; None is the CPU.
        """
        distinct, rank = timestep.cpu().unique(return_inverse=True)
        self.part = rank * TIMESTEP_GROUPS // len(distinct)
        """(R,) int64, timestep group of each row, 0-4."""
        self.logits = torch.zeros(len(timestep), device=device)

    def of(self, index: Tensor) -> Tensor:
        """(B,) float32 weights of the rows of a batch, mean 1; on the device."""
        return self.logits[to_device(index, self.logits.device)].softmax(0) * len(index)

    def update(
        self,
        index: Tensor,
        validation: Tensor,
        losses: Callable[[Tensor], Tensor],
        parameters: Sequence[nn.Parameter],
    ) -> Tensor:
        """Move the logits of a batch along their scores.

        Args:
            index, validation: (B,), (V,) int64 row numbers, on the CPU.
            losses: rows (N,) -> (N,) losses with gradient in ``parameters``, the same whenever called with the same.
        Returns:
            (B,) float32 scores before centring, on the device.
        """
        score = self.scores(index, validation, losses, parameters)
        centred = score - score.mean()
        size = centred.square().mean().sqrt()
        rows = to_device(index, self.logits.device)
        before = self.logits[rows]
        after = (before + RATE * centred / size).clamp(-LIMIT, LIMIT)
        self.logits[rows] = torch.where(size.isfinite() & (size > 0.0), after, before)
        return score

    def scores(
        self,
        index: Tensor,
        validation: Tensor,
        losses: Callable[[Tensor], Tensor],
        parameters: Sequence[nn.Parameter],
    ) -> Tensor:
        """(B,) float32 directional derivatives of the rows' losses, on the device.

        All rows of a timestep group share a direction v, so that their <grad L_i, v> come from two forward passes at
        parameters +- eps v and not from one backward pass per row.
        """
        members = {int(g): (self.part[index] == g).nonzero()[:, 0] for g in self.part[index].unique()}
        outer = _gradient(losses(validation), parameters)
        of_group = {g: _gradient(losses(index[at]), parameters) for g, at in members.items()}
        score = torch.zeros(len(index), device=self.logits.device)
        for g, at in members.items():
            others = [gradient for h, gradient in of_group.items() if h != g]
            direction = [v + ALIGNMENT * sum(o[i] for o in others) for i, v in enumerate(outer)]
            score[to_device(at, score.device)] = _derivative(index[at], direction, losses, parameters)
        return score


def _gradient(losses: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return list(torch.autograd.grad(losses.mean(), parameters, materialize_grads=True))


@torch.no_grad()
def _derivative(
    index: Tensor,
    direction: Sequence[Tensor],
    losses: Callable[[Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
) -> Tensor:
    """(N,) float32: <grad L_i, direction> by central differences; the parameters end as they were."""
    largest = torch.stack([v.abs().max() for v in direction]).max()
    eps = STEP / largest.double()  # the host's arithmetic, without the host
    start = [parameter.clone() for parameter in parameters]
    found = []
    for sign in (1.0, -1.0):
        for parameter, origin, v in zip(parameters, start, direction, strict=True):
            parameter.copy_(origin + sign * eps * v)
        found.append(losses(index))
    for parameter, origin in zip(parameters, start, strict=True):
        parameter.copy_(origin)
    derivative = (found[0] - found[1]) / (2 * eps)
    return torch.where(largest == 0.0, torch.zeros_like(derivative), derivative)
