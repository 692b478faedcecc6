"""Runs the stages of a fit: segment gradients, Adam, averaged iterates, and the best of all on validation samples.

Everything random derives from (seed, stage, iteration) and everything else is in the checkpoint, so that a run that
was killed and started again is bit-identical to one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from dq_toolchain.calibrate.multistep.diagnose import first_bad_site
from dq_toolchain.calibrate.multistep.gradients import segment_gradient
from dq_toolchain.calibrate.multistep.objective import robust_loss
from dq_toolchain.calibrate.multistep.problem import Problem, Segment
from dq_toolchain.calibrate.multistep.progress import Progress
from dq_toolchain.calibrate.multistep.stages import Stage
from dq_toolchain.calibrate.network.graphs import recorder_for, replayed
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.calibrate.work.lagged import Lagged
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.errors import CalibrationError

AVERAGE = 0.98
"""Decay of the running mean of the iterates."""
JUDGED = 5
LEAST_INTERVAL = 5
"""Five times per stage, but at most every fifth iteration, the iterate is validated."""
EARLY = 10
BETAS = (0.9, 0.99)
"""Of Adam."""
BIAS_RATE = 0.25
"""Learning rate of biases as a share of the scales': these are logarithms, biases add to outputs of size one."""
DIVERGED = 30.0
"""A loss this many times the largest of the stage's first ten is divergence, not noise."""


@dataclass(frozen=True)
class _Iteration:
    stage: Stage
    number: int
    segment: Segment


def interval_of(stage: Stage) -> int:
    """Iterations from one validation to the next; the last iteration is validated in any case."""
    return max(LEAST_INTERVAL, stage.iterations // JUDGED) if stage.interval is None else stage.interval


class MultiStepFit:
    """Fits a QuantizedNetwork to a Problem, stage by stage."""

    def __init__(
        self,
        network: QuantizedNetwork,
        problem: Problem,
        stages: tuple[Stage, ...],
        checkpoint: CheckpointFile,
        warn: Callable[[str], None],
    ) -> None:
        self.network, self.problem, self.stages, self.checkpoint = network, problem, stages, checkpoint
        self.progress = Progress()
        self.parameters: dict[str, nn.Parameter] = {}
        self.average: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.optimizer: torch.optim.Adam | None = None
        device = problem.context.device
        self._numbers: Lagged[_Iteration] = Lagged(device, "loss")
        self._hold = torch.zeros((), device=device)
        self._warn = warn
        self._clock = time.perf_counter()

    @property
    def total_iterations(self) -> int:
        return sum(stage.iterations for stage in self.stages)

    @property
    def done_iterations(self) -> int:
        return sum(stage.iterations for stage in self.stages[: self.progress.stage]) + self.progress.iteration

    def run(self, advance: Advance = lambda n=1, note="": None) -> list[dict[str, Any]]:
        """Run to the end, from the checkpoint if there is one. Returns one record per stage.

        Raises:
            CalibrationError: a loss or an activation is not finite, or the loss diverges.
        """
        saved = self.checkpoint.load()
        if saved is not None:
            self._restore(*saved)
            advance(self.done_iterations)
        self._clock = time.perf_counter()
        with self._replayed():
            while self.progress.stage < len(self.stages):
                self._run_stage(self.stages[self.progress.stage], advance)
        return self.progress.history

    def _run_stage(self, stage: Stage, advance: Advance) -> None:
        if self.optimizer is None:
            self._begin(stage)
        with self._weights_for(stage):
            if math.isinf(self.progress.best):
                self._validate()
            while self.progress.iteration < stage.iterations:
                loss = self._iterate(stage)
                self.progress.iteration += 1
                advance(1, stage.name if loss is None else f"{stage.name}, loss {loss:.4g}")
                if self.progress.iteration % interval_of(stage) == 0 or self.progress.iteration == stage.iterations:
                    self._validate()
                if self.checkpoint.due:
                    self._save()
            self._judge(self._numbers.rest())
        self._load(self.best)
        self.progress.history.append(
            {
                "stage": stage.name,
                "iterations": stage.iterations,
                "horizon": stage.horizon,
                "validation_psnr": -10 * self.progress.best + 20 * math.log10(2.0),
            }
        )
        self.progress.stage += 1
        self.progress.iteration, self.progress.first_loss, self.optimizer = 0, 0.0, None
        self._save()

    def _replayed(self) -> AbstractContextManager[None]:
        """Full backpropagation has the activations of several passes at once, which recordings share."""
        context, left = self.problem.context, self.stages[self.progress.stage :]
        fits = not context.is_large and all(stage.gradient != "full" for stage in left)
        learns = any(stage.learned != "ranges" for stage in left)
        return replayed(self.network, recorder_for(context.device) if fits else None, self._warn, learns_weights=learns)

    def _weights_for(self, stage: Stage) -> AbstractContextManager[None]:
        return self.network.frozen_weights() if stage.learned == "ranges" else nullcontext()

    def _begin(self, stage: Stage) -> None:
        p = self.problem.settings
        ranges, weights = self.network.scale_parameters(), self.network.weight_parameters()
        self.parameters = ranges if stage.learned == "ranges" else ranges | weights
        if stage.learned == "scales":
            self.parameters = {n: v for n, v in self.parameters.items() if not n.endswith("offset")}
        rates = {"log_scale": p.scale_lr, "offset": p.rounding_lr, "bias": BIAS_RATE * p.scale_lr}
        self.optimizer = torch.optim.Adam(
            [
                {"params": [v for n, v in self.parameters.items() if n.endswith(f".{kind}")], "base": rate}
                for kind, rate in rates.items()
            ],
            betas=BETAS,
            fused=True,
        )
        if self._numbers.lag:
            self.optimizer.found_inf = self._hold  # type: ignore[attr-defined]  # fused Adam then leaves all as it is
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.best = {name: value.detach().clone() for name, value in self.parameters.items()}

    def _iterate(self, stage: Stage) -> float | None:
        """One iteration. Returns the last loss that has been read: this one's, or where numbers lag behind the one before's."""
        progress, optimizer = self.progress, self.optimizer
        assert optimizer is not None
        segment = self.problem.draw(self.network, stage, progress.stage, progress.iteration)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * stage.rate(progress.iteration)
        numbers = self._differentiate(stage, segment)
        value = self._judge(self._numbers.put(numbers, _Iteration(stage, progress.iteration, segment)))
        if self._numbers.lag:
            self._hold.copy_(torch.maximum(self._hold, 1 - numbers.isfinite().all().float()))
        optimizer.step()
        self.network.clamp_offsets()
        decay = min(AVERAGE, (1 + progress.iteration) / (10 + progress.iteration))
        with torch.no_grad():
            torch._foreach_lerp_([*self.average.values()], [*self.parameters.values()], 1 - decay)
        return value

    def _differentiate(self, stage: Stage, segment: Segment) -> Tensor:
        """Gradients into ``.grad``. Returns (2,): the loss, of all processes, and the largest absolute gradient."""
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=False)
        with nullcontext() if stage.learned == "ranges" else self.network.weights_once():
            losses = [
                segment_gradient(
                    self.problem.context.table,
                    part.denoiser,
                    part.start,
                    part.first,
                    part.length,
                    robust_loss(part.targets, part.first, part.length, segment.samples),
                    stage.gradient,
                    part.noise,
                )[0]
                for part in self.problem.parts(segment, stage)
            ]
            loss = torch.stack(losses).sum()
        workers = self.problem.context.workers
        workers.average_(parameter.grad for parameter in self.parameters.values())
        return torch.stack([workers.sum(loss), get_total_norm(self._gradients().values(), math.inf)])

    def _gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.parameters.items() if p.grad is not None}

    def _judge(self, due: list[tuple[list[float], _Iteration]]) -> float | None:
        """Check iterations whose numbers have come; the last one's loss. If late, ``_hold`` has kept what is learned as it was."""
        value = None
        for (total, largest), iteration in due:
            value = total / self.problem.context.workers.count
            if not (math.isfinite(value) and math.isfinite(largest)):
                self._refuse(iteration)
            self._check_divergence(value, iteration)
        return value

    def _refuse(self, iteration: _Iteration) -> None:
        stage, segment = iteration.stage, iteration.segment
        if self._numbers.lag:  # the gradients at hand are another iteration's
            self._differentiate(stage, segment)
        bad = (name for name, gradient in self._gradients().items() if not gradient.isfinite().all())
        where = first_bad_site(self.network, lambda: segment.denoiser(segment.start.latent, segment.first))
        raise CalibrationError(
            f"stage {stage.name!r}, iteration {iteration.number}: NaN or infinity at site "
            f"{where or next(bad, 'the latents')}; lower [calibrate] scale_lr or check the model; the last good checkpoint is kept"
        )

    def _check_divergence(self, value: float, iteration: _Iteration) -> None:
        progress, stage = self.progress, iteration.stage
        if iteration.number < EARLY:
            progress.first_loss = max(progress.first_loss, value)
        elif value > DIVERGED * progress.first_loss:
            raise CalibrationError(
                f"stage {stage.name!r} diverges: loss {value:.3g} after {iteration.number} iterations, "
                f"{progress.first_loss:.3g} at its start; lower [calibrate] scale_lr and rounding_lr"
            )

    def _validation_error(self) -> float:
        ranges_only = self.stages[self.progress.stage].learned == "ranges"  # then weights are fixed already
        with nullcontext() if ranges_only else self.network.frozen_weights():
            return self.problem.validation_error(self.network)

    def _validate(self) -> None:
        """Keep the averaged iterate if it is the best so far on the validation samples."""
        current = {name: value.detach().clone() for name, value in self.parameters.items()}
        candidate = self.average if self.progress.iteration else current
        self._load(candidate)
        score = self._validation_error()
        if score < self.progress.best:
            self.progress.best = score
            self.best = {name: value.clone() for name, value in candidate.items()}
        self._load(current)

    @torch.no_grad()
    def _load(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def _save(self) -> None:
        self._judge(self._numbers.rest())  # no checkpoint goes beyond an iteration that would be refused
        tensors = {
            f"value.{n}": v.detach()
            for n, v in (*self.network.scale_parameters().items(), *self.network.weight_parameters().items())
        }
        if self.optimizer is not None:
            tensors |= {f"average.{n}": v for n, v in self.average.items()} | {
                f"best.{n}": v for n, v in self.best.items()
            }
            for name, parameter in self.parameters.items():
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    tensors[f"adam.{key}.{name}"] = value
        now = time.perf_counter()
        self.progress.seconds += now - self._clock
        self._clock = now
        self.checkpoint.save(tensors, self.progress.to_json())

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.progress = Progress.from_json(state)
        for name, parameter in (*self.network.scale_parameters().items(), *self.network.weight_parameters().items()):
            parameter.copy_(tensors[f"value.{name}"])
        if not any(name.startswith("best.") for name in tensors):
            return
        self._begin(self.stages[self.progress.stage])
        assert self.optimizer is not None
        for name, parameter in self.parameters.items():
            self.average[name].copy_(tensors[f"average.{name}"])
            self.best[name].copy_(tensors[f"best.{name}"])
            adam = dict(_adam_state(tensors, name))
            if adam:
                self.optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in adam.items()}


def _adam_state(tensors: dict[str, Tensor], name: str) -> Iterator[tuple[str, Tensor]]:
    for key in ("step", "exp_avg", "exp_avg_sq"):
        if f"adam.{key}.{name}" in tensors:
            yield key, tensors[f"adam.{key}.{name}"]
