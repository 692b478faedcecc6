"""What a fit works on: samples with their FP32 trajectories, segments drawn from them, and the samples that validate.

Every draw derives from (seed, stage, iteration), so that a run continued from a checkpoint draws what it would have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.multistep.growth import error_growth
from dq_toolchain.calibrate.multistep.objective import final_error
from dq_toolchain.calibrate.multistep.stages import Stage
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.work.seeds import hash_seed
from dq_toolchain.toolchain.recipe.sections import CalibrateSection
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import State, rollout
from dq_toolchain.toolchain.sampler.transfer import to_device

GROWTH_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Steps first .. first + length - 1 of some samples: B start states and the FP32 latents (length + 1, B, C, H, W)."""

    first: int
    length: int
    start: State
    targets: Tensor
    denoiser: Denoiser
    noise: Tensor | None

    @property
    def samples(self) -> int:
        """B."""
        return self.targets.shape[1]

    def select(self, rows: slice) -> Segment:
        """The same steps of some of the samples."""
        start = State(tuple(x[rows] for x in self.start.latents), tuple(f[rows] for f in self.start.outputs))
        return replace(
            self,
            start=start,
            targets=self.targets[:, rows],
            denoiser=replace(self.denoiser, conditioning=self.denoiser.conditioning.select(rows)),
            noise=None if self.noise is None else self.noise[:, rows],
        )


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is fitted: the context's samples with their FP32 targets, the last ``validation`` of which only validate.

    Attributes:
        growth: (N,) how much an error of each step grows until the end; None draws all steps alike.
    """

    context: Context
    targets: Rollouts
    validation: int
    settings: CalibrateSection
    growth: Tensor | None = None

    @property
    def fitted(self) -> int:
        return len(self.context.samples) - self.validation

    def draw(self, network: QuantizedNetwork, stage: Stage, stage_index: int, iteration: int) -> Segment:
        """The segment of one iteration, on the fit's device."""
        context = self.context
        generator = torch.Generator().manual_seed(hash_seed(context.seed, stage_index, iteration))
        index = torch.randperm(self.fitted, generator=generator)[: stage.trajectories(self.settings.batch)]
        index = index[context.workers.share(len(index))]
        low, high = stage.window[0], stage.window[1] - stage.horizon
        first = self._draw_first(low, high, stage.horizon, generator)
        part = context.samples.select(index)
        denoiser = context.denoiser(network, part, network.set_step, context.gradient_batch)
        noise = context.noise(part)
        if stage.inherited and first > 0:
            start = self._rolled_in(denoiser, part.start, first, noise)
        else:
            fp32 = self.targets.state(context.table, first, index)
            start = State(
                tuple(to_device(x, context.device) for x in fp32.latents),
                tuple(to_device(f, context.device) for f in fp32.outputs),
            )
        targets = to_device(self.targets.latents[first : first + stage.horizon + 1, index], context.device)
        return Segment(first=first, length=stage.horizon, start=start, targets=targets, denoiser=denoiser, noise=noise)

    def parts(self, segment: Segment, stage: Stage) -> list[Segment]:
        """The samples of an iteration, at most so many at once as have room for their activations."""
        most = self.context.gradient_batch
        if most is None:
            return [segment]
        size = max(1, most // stage.kept)
        return [segment.select(slice(begin, begin + size)) for begin in range(0, segment.samples, size)]

    def with_growth(self, network: QuantizedNetwork) -> Problem:
        """The same problem with the growth of errors, measured on a few samples with the network as it is."""
        context = self.context
        part = context.samples.select(slice(0, min(GROWTH_SAMPLES, self.fitted)))
        exact = context.denoiser(context.network, part, batch=context.rollout_batch)
        quantized = context.denoiser(network, part, network.set_step, context.rollout_batch)
        targets = self.targets.select(slice(0, len(part)), context.device)
        with network.frozen_weights():
            growth = error_growth(context.table, exact, quantized, targets, context.noise(part))
        return replace(self, growth=context.workers.agreed(growth))

    def _draw_first(self, low: int, high: int, horizon: int, generator: torch.Generator) -> int:
        """A first step from low .. high, alike or in proportion to the mean growth over the segment's steps."""
        if self.growth is None:
            return int(torch.randint(low, high + 1, (), generator=generator))
        chances = self.growth.unfold(0, horizon, 1).mean(1)[low : high + 1]
        return low + int(torch.multinomial(chances, 1, generator=generator))

    @torch.no_grad()
    def validation_error(self, network: QuantizedNetwork) -> float:
        """``final_error`` of the validation samples after a whole run of the sampler; inf if it is not finite."""
        context = self.context
        wanted = to_device(self.targets.latents[-1, self.fitted :], context.device)
        share = torch.arange(self.fitted, len(context.samples))[context.workers.share(len(wanted))]
        finals = [wanted[:0]]
        for rows in share.split(context.rollout_batch) if len(share) else ():
            part = context.samples.select(rows)
            denoiser, start = context.denoiser(network, part, network.set_step), to_device(part.start, context.device)
            with context.shortened():
                finals.append(rollout(context.table, denoiser, start, noise=context.noise(part))[-1])
        score = final_error(context.workers.gather(torch.cat(finals), len(wanted)), wanted)
        return score if math.isfinite(score) else math.inf

    @torch.no_grad()
    def _rolled_in(self, denoiser: Denoiser, start: Tensor, first: int, noise: Tensor | None) -> State:
        outputs: list[Tensor] = []
        run = rollout(
            self.context.table,
            denoiser,
            to_device(start, self.context.device),
            noise=noise,
            last=first,
            on_step=lambda _k, _x, f: outputs.append(f),
        )
        return State(tuple(run.flip(0)), tuple(reversed(outputs)))
