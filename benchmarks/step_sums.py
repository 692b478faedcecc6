"""What a fit can minimise over the steps of a trajectory: gradients of an iteration, for ``benchmarks.trajectory_sum``.

Every objective is a generator that leaves gradients in ``.grad`` and yields the passes that they took: network evaluations of one
sample, with gradient or without. The quantized network always computes at FP32's latents, but for segments. Notation: d[k] is the
error of the network's output at step k, a[k] its gain: how much of it, with its sign, is in the finished sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.common import Prepared
from benchmarks.injected_errors import injected_errors
from dq_toolchain.calibrate.multistep.gradients import segment_gradient
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import State, rollout

BATCH = 8
VISITS = 2
"""How often ``sum_of_steps`` visits each step of a pool of trajectories before the next pool."""
HORIZONS = (1, 2, 4, 8)
Passes = Iterator[int]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all objectives work on: FP32's trajectories, the first ``fitted`` of which are fitted, and the quantized network.

    Attributes:
        gain: (N,) a[k]; growth: (N,) median over samples of the norm of a final error over that of its step's latent.
        explained: (N,) cosine of a step's error and what it is in the finished sample, median over samples.
    """

    prepared: Prepared
    network: QuantizedNetwork
    fitted: int
    gain: Tensor
    growth: Tensor
    explained: Tensor

    @classmethod
    def measured(cls, prepared: Prepared, network: QuantizedNetwork, fitted: int) -> Ground:
        """With gains of the network as it is, on a few trajectories: each step's error alone, carried to the end by FP32."""
        context, rows = prepared.context, torch.arange(BATCH)
        table, samples = context.table, context.samples.select(rows)
        if len(table.a[0]) > 1 or len(table.b[0]) > 1:
            raise SystemExit(
                f"{table.scheduler} looks back on earlier steps; only samplers such as DDIM are measured here"
            )
        targets = prepared.targets.select(slice(0, BATCH), context.device)
        with network.frozen_weights(), torch.no_grad():
            quantized = context.denoiser(network, samples, network.set_step)
            final = injected_errors(
                table,
                lambda n: context.denoiser(context.network, samples.select(rows.repeat(n)), batch=32),
                quantized,
                targets,
            ).flatten(2)
            made = torch.stack([quantized(x, k) for k, x in enumerate(targets.latents[:-1])]) - targets.outputs
        made = made.flatten(2)
        step = torch.tensor([row[0] for row in table.b])
        return cls(
            prepared=prepared, network=network, fitted=fitted,
            gain=(made * final).sum((1, 2)) / made.square().sum((1, 2)),
            growth=(final.norm(dim=2) / made.norm(dim=2)).median(1).values / step.abs(),
            explained=torch.cosine_similarity(made * step.view(-1, 1, 1), final, dim=2).median(1).values,
        )  # fmt: skip

    def drawn(self, random: torch.Generator, count: int) -> tuple[Denoiser, Tensor, Tensor]:
        """Some trajectories: the quantized network on them, FP32's latents (N + 1, B, ...) and outputs (N, B, ...)."""
        index = torch.randperm(self.fitted, generator=random)[:count]
        denoiser = self.prepared.context.denoiser(
            self.network, self.prepared.context.samples.select(index), self.network.set_step
        )
        return denoiser, self.prepared.targets.latents[:, index], self.prepared.targets.outputs[:, index]


def single_steps(ground: Ground, random: torch.Generator, gradient: Callable[[Tensor], Tensor]) -> Passes:
    """One step at a time, drawn by its growth."""
    while True:
        k = int(torch.multinomial(ground.growth, 1, generator=random))
        denoiser, latents, outputs = ground.drawn(random, BATCH)
        with ground.network.weights_once():
            made = denoiser(latents[k], k)
            made.backward(gradient(made.detach() - outputs[k]))
        yield BATCH


def of_root(error: Tensor) -> Tensor:
    """Gradient of the root-mean-square of each sample, the project's own loss."""
    return error / _column(error.flatten(1).norm(dim=1), error)


def of_huber(error: Tensor) -> Tensor:
    """Gradient of Huber's loss with its bend at the median of the sample's absolute errors."""
    bend = _column(error.flatten(1).abs().median(1).values, error)
    return (error / bend).clamp(-1, 1) / error[0].numel()


def random_horizons(ground: Ground, random: torch.Generator) -> Passes:
    """Segments of 1, 2, 4 or 8 quantized steps; their error at the end, times its growth from there on."""
    table = ground.prepared.context.table
    while True:
        length = HORIZONS[int(torch.randint(len(HORIZONS), (), generator=random))]
        first = int(torch.randint(table.calls - length + 1, (), generator=random))
        denoiser, latents, _ = ground.drawn(random, BATCH // length)
        end, weight = first + length, float(ground.growth[first + length - 1])

        def loss(
            k: int, x: Tensor, end: int = end, weight: float = weight, latents: Tensor = latents
        ) -> tuple[Tensor, Tensor]:
            error = x - latents[end]
            return torch.zeros(()), weight * of_root(error) / len(error) if k == end else torch.zeros_like(error)

        with ground.network.weights_once():
            segment_gradient(table, denoiser, State((latents[first],)), first, length, loss, "full")
        yield length * len(latents[0])


def sum_of_steps(ground: Ground, random: torch.Generator, share: float) -> Passes:
    """Root of share * ||sum_k a[k] d[k]||^2 + (1 - share) * sum_k ||a[k] d[k]||^2 of each trajectory of a pool.

    A sweep without gradient gives every d[k]; then each visit of a step renews its d[k], and with it the sum.
    """
    gain, calls = ground.gain, ground.prepared.context.table.calls
    while True:
        denoiser, latents, outputs = ground.drawn(random, BATCH)
        with ground.network.frozen_weights(), torch.no_grad():
            errors = torch.stack([denoiser(latents[k], k) for k in range(calls)]) - outputs
        total = torch.einsum("k,k...->...", gain, errors)
        powers = torch.einsum("k,ks->s", gain.square(), errors.flatten(2).square().sum(2))
        spent = calls * BATCH
        for k in (k for _ in range(VISITS) for k in torch.randperm(calls, generator=random).tolist()):
            with ground.network.weights_once():
                made = denoiser(latents[k], k)
                error = made.detach() - outputs[k]
                total = total + gain[k] * (error - errors[k])
                powers = powers + gain[k].square() * (_power(error) - _power(errors[k]))
                errors[k] = error
                root = (share * _power(total) + (1 - share) * powers).sqrt()
                made.backward(gain[k] * (share * total + (1 - share) * gain[k] * error) / _column(root, error))
            yield spent + BATCH
            spent = 0


def carried_sum(ground: Ground, random: torch.Generator, share: float) -> Passes:
    """The same with what FP32's own derivative carries to the end in the place of gains.

    The sum is the closed loop's error, and a sweep backwards along FP32's trajectory gives its gradient at every step. Neither is
    renewed before the next pool (it would take a whole run), so each step is visited once. Single steps (1 - share) are weighted
    with their growth.
    """
    context = ground.prepared.context
    table, calls = context.table, context.table.calls
    while True:
        denoiser, latents, outputs = ground.drawn(random, BATCH)
        with ground.network.frozen_weights(), torch.no_grad():
            error = rollout(table, denoiser, latents[0])[-1] - latents[-1]
        costate, carried = of_root(error), [error] * calls
        exact = Denoiser(context.network, table, denoiser.conditioning, context.guidance)
        for k in reversed(range(calls)):
            carried[k] = table.b[k][0] * costate
            x = latents[k].clone().requires_grad_()
            (through,) = torch.autograd.grad(exact(x, k), x, carried[k])
            costate = table.a[k][0] * costate + through
        root, spent = _power(error).sqrt(), 2 * calls * BATCH
        for k in torch.randperm(calls, generator=random).tolist():
            with ground.network.weights_once():
                made = denoiser(latents[k], k)
                alone = (ground.growth[k] * table.b[k][0]) ** 2 * (made.detach() - outputs[k]) / _column(root, error)
                made.backward(share * carried[k] + (1 - share) * alone)
            yield spent + BATCH
            spent = 0


def _power(error: Tensor) -> Tensor:
    return error.flatten(1).square().sum(1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(B,) to be divided by, shaped as a batch; not zero."""
    return values.clamp(min=torch.finfo(values.dtype).tiny).view(-1, *[1] * (like.dim() - 1))
