"""Gradients of a multi-step error: three ways behind one function.

A segment of n denoising steps is run with the quantized network; the error at its steps is differentiated with
respect to everything learnable in the network. Notation: x[k] latents, f[k] network outputs, A, B the table's
coefficients, J[k] the network's Jacobian df/dx.

- ``full``: plain backpropagation through the unrolled segment; activation memory O(n).
- ``adjoint``: the same gradient by recomputation (Chen et al. 2016 taken to one step at a time): a sweep without
  graph keeps n latents, then each step is run alone, latest first; activation memory O(1). It costs 2n - 1 forward
  and n backward passes, hence for n = 1 what single-step fitting costs.
- ``surrogate``: the adjoint with J dropped, AccuQuant's approximation. The exact gradient of
  ||x[n] + sum_j w_j (f(sg x[j]) - sg f(x[j])) - target||^2 with w_j = (prod_{m>j} A_m) B_j, sg = stop-gradient;
  our reconstruction, since the paper gives no code (see docs/METHOD.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from dq_toolchain.toolchain.sampler.rollout import Network, State
from dq_toolchain.toolchain.sampler.table import SamplerTable

Gradient = Literal["adjoint", "surrogate", "full"]
Loss = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""(k, x[k]) -> (loss (), its gradient with respect to x[k], shape of x). Called for every k after the first."""


def segment_gradient(
    table: SamplerTable,
    network: Network,
    start: State,
    first: int,
    length: int,
    loss: Loss,
    kind: Gradient,
    noise: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Accumulate d(sum of losses)/d(parameters) into ``.grad`` of the network's parameters.

    Args:
        network: (x[k], k) -> f[k], which scales x[k] itself; differentiable in its parameters and in x.
        start: state before step ``first``; taken as constant.
        first, length: the segment's steps first .. first + length - 1.
        loss: see ``Loss``; a zero gradient at a step costs nothing.
        noise: (N, B, ...) or None.
    Returns:
        The total loss () and the latents [x[first], ..., x[first + length]], detached.
    """
    if kind == "full":
        return _full(table, network, start, first, length, loss, noise)
    return _adjoint(table, network, start, first, length, loss, noise, through_network=kind == "adjoint")


def _full(
    table: SamplerTable, network: Network, start: State, first: int, length: int, loss: Loss, noise: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    state, visited, gradients = start, [start.latent], []
    total = torch.zeros((), device=start.latent.device)
    for k in range(first, first + length):
        state = state.after(table, k, network(state.latent, k), noise)
        value, gradient = loss(k + 1, state.latent.detach())
        visited.append(state.latent)
        gradients.append(gradient)
        total = total + value
    torch.autograd.backward(visited[1:], gradients)
    return total, [x.detach() for x in visited]


@torch.no_grad()
def _sweep(
    table: SamplerTable, network: Network, start: State, first: int, length: int, noise: Tensor | None
) -> tuple[list[Tensor], State]:
    """Without a graph: latents [x[first], ..., x[first + length]], and where the sampler stands after them."""
    state, visited = start, [start.latent]
    for k in range(first, first + length):
        state = state.after(table, k, network(state.latent, k), noise)
        visited.append(state.latent)
    return visited, state


def _adjoint(
    table: SamplerTable,
    network: Network,
    start: State,
    first: int,
    length: int,
    loss: Loss,
    noise: Tensor | None,
    through_network: bool,
) -> tuple[Tensor, list[Tensor]]:
    visited, state = _sweep(table, network, start, first, length - 1, noise)  # to be completed by the last step
    total = torch.zeros((), device=visited[0].device)
    # costate of x[first + i] and of f[first + i]; contributions to the history before the segment are dropped
    latent_costate: list[Tensor | None] = [None] * (length + 1)
    output_costate: list[Tensor | None] = [None] * length
    for i in reversed(range(length)):
        k = first + i
        x = visited[i].detach().requires_grad_(through_network and i > 0)
        with torch.enable_grad():
            output = network(x, k)
        if i == length - 1:
            visited.append(state.after(table, k, output.detach(), noise).latent)
        value, gradient = loss(k + 1, visited[i + 1])
        total = total + value
        costate = _add(latent_costate[i + 1], gradient)
        latent_costate[i + 1] = None
        _spread(latent_costate, table.a[k], i, costate)
        _spread(output_costate, table.b[k], i, costate)
        torch.autograd.backward(output, output_costate[i])
        if x.grad is not None:
            latent_costate[i] = _add(latent_costate[i], x.grad)
        output_costate[i] = None
    return total, visited


def _add(costate: Tensor | None, gradient: Tensor) -> Tensor:
    return gradient if costate is None else costate + gradient


def _spread(costates: list[Tensor | None], row: Sequence[float], i: int, costate: Tensor) -> None:
    for back, coefficient in enumerate(row):
        if coefficient != 0 and i - back >= 0:
            costates[i - back] = _add(costates[i - back], coefficient * costate)
    if costates[i] is None:
        costates[i] = torch.zeros_like(costate)
