"""Optimises one unit: soft rounding and activation log-scales by Adam, against the unit's FP32 outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dq_toolchain.calibrate.blocks.adaround import SoftRounding, penalty
from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.blocks.options import PHASES, BlockBudget, BlockOptions, BlockPhase
from dq_toolchain.calibrate.blocks.row_weights import EVERY, RowWeights
from dq_toolchain.calibrate.blocks.unit_problem import Pools, UnitProblem
from dq_toolchain.calibrate.network.fake_quant import ActivationQuantizer
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.work.lagged import Lagged
from dq_toolchain.calibrate.work.seeds import hash_seed
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.errors import CalibrationError

SCALE_NORM = 2.4
"""Q-Diffusion's norm for activation scales; rounding is fitted in the L2 norm."""
VALIDATION_SHARE = 8
"""One row in eight is only validated on when rows are weighted."""


@dataclass(kw_only=True)
class UnitFit:
    """Fits units one after the other; what it carries from one to the next is only the rows' weights."""

    network: QuantizedNetwork
    rows: Evaluations
    pools: Pools
    options: BlockOptions
    budget: BlockBudget
    seed: int
    weights: RowWeights
    masks: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.masks = torch.Generator(self.network.device)

    def run(self, problem: UnitProblem, phase: BlockPhase, count: int, number: int, advance: Advance) -> None:
        """``count`` iterations on the unit with that number; the rounding chosen is then in its quantizers.

        Activations left in float in this phase were set so by the caller; nothing of the network needs a gradient.

        Raises:
            CalibrationError: a loss is not finite; the text names the unit.
        """
        learns_weights, learns_scales = phase != "activations", phase != "weights"
        problem.bring()
        soft = [SoftRounding(self.network.layers[name]) for name in problem.unit.layers] if learns_weights else []
        quantizers = list(problem.quantizers.values()) if learns_scales else []
        variables = [rounding.v for rounding in soft]
        scales = [quantizer.log_scale for quantizer in quantizers]
        rates = ((variables, self.budget.lr), (scales, self.budget.scale_lr))
        adam = torch.optim.Adam([{"params": params, "lr": rate} for params, rate in rates if params], fused=True)
        weighted = self.options.aligned and learns_weights
        # in float, step groups do not differ, and a batch may mix all rows
        pools = self.pools if learns_scales else Pools.single(self.rows)
        validation = pools.share(len(self.rows) // VALIDATION_SHARE)
        fitted = pools.without(validation) if weighted else pools
        draw = (self.seed, PHASES.index(phase), number)
        numbers: Lagged[int] = Lagged(problem.device, "loss")
        norm = 2.0 if learns_weights else SCALE_NORM
        with self._learning(quantizers):
            upcoming = fitted.drawn(self.budget.batch, hash_seed(*draw, 0))
            for iteration in range(count):
                mask_seed = hash_seed(*draw, iteration, 1)
                chosen, index, generator = upcoming
                if weighted and iteration % EVERY == 0:
                    validated = validation.draw_from(chosen, self.budget.batch, generator)
                    losses = _closure(self, problem, soft, norm, mask_seed)
                    self.weights.update(index, validated, losses, variables)
                if scales:
                    cosine = (1 + math.cos(math.pi * iteration / count)) / 2
                    adam.param_groups[-1]["lr"] = self.budget.scale_lr * cosine
                up = [rounding.apply() for rounding in soft]
                self.masks.manual_seed(mask_seed)
                errors = problem.losses(index, norm)
                if iteration + 1 < count:
                    upcoming = fitted.drawn(self.budget.batch, hash_seed(*draw, iteration + 1))
                    problem.expect(upcoming[1])
                loss = (errors * self.weights.of(index)).mean() if weighted else errors.mean()
                value = self._checked(numbers.put(loss.view(1), iteration), problem, phase)
                advance(1, f"{phase}, {problem.unit.name}{'' if value is None else f', loss {value:.4g}'}")
                for each in up:
                    loss = loss + penalty(each, iteration / count)
                adam.zero_grad()
                loss.backward()
                adam.step()
        self._checked(numbers.rest(), problem, phase)
        for rounding in soft:
            rounding.commit()

    @contextmanager
    def _learning(self, quantizers: list[ActivationQuantizer]) -> Iterator[None]:
        """Inside, these quantizers learn their scales and leave a share of their input in float."""
        for quantizer in quantizers:
            quantizer.float_share, quantizer.generator = self.options.drop, self.masks
            quantizer.log_scale.requires_grad_()
        try:
            yield
        finally:
            for quantizer in quantizers:
                quantizer.float_share, quantizer.generator = 0.0, None
                quantizer.log_scale.requires_grad_(False).grad = None

    @staticmethod
    def _checked(due: list[tuple[list[float], int]], problem: UnitProblem, phase: BlockPhase) -> float | None:
        """The last of the losses that have come, each with its iteration."""
        loss = None
        for (loss,), iteration in due:
            if not math.isfinite(loss):
                raise CalibrationError(
                    f"reconstruction of {problem.unit.name}, {phase}, iteration {iteration}: the loss is NaN or infinite; "
                    "check the model and its conditioning; the units finished before it are kept"
                )
        return loss


def _closure(
    fit: UnitFit, problem: UnitProblem, soft: list[SoftRounding], norm: float, mask_seed: int
) -> Callable[[Tensor], Tensor]:
    """Rows -> losses, the same whenever it is called with the same rows and variables."""

    def losses(index: Tensor) -> Tensor:
        for rounding in soft:
            rounding.apply()
        fit.masks.manual_seed(mask_seed)
        return problem.losses(index, norm)

    return losses
