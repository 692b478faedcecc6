"""How the errors of single steps add up: each carried to the end alone, against the error of all of them together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.sampler.rollout import Network, State
from dq_toolchain.toolchain.sampler.table import SamplerTable


def steps_of(calls: int) -> int:
    """Steps of all samples that ``injected_errors`` runs: N quantized ones, and N (N - 1) / 2 of FP32."""
    return calls * (calls + 1) // 2


@torch.no_grad()
def injected_errors(
    table: SamplerTable,
    exact: Callable[[int], Network],
    quantized: Network,
    targets: Rollouts,
    *,
    noise: Tensor | None = None,
    quantized_table: SamplerTable | None = None,
    advance: Advance = lambda n=1: None,
) -> Tensor:
    """Each step's error in the finished sample: FP32 up to step k, that step quantized, FP32 again from there on.

    All injections that have been made so far run as one batch, so that step k is one call of the FP32 network.

    Args:
        table: FP32's. exact: n -> the FP32 network on the samples repeated n times. quantized: on the samples.
        targets: FP32's rollouts of S samples. noise: (N, S, ...) or None.
        quantized_table: of the quantized step, where it differs (a correction at run time).
    Returns:
        (N, S, ...), error of the last latents by step.
    """
    calls, count = targets.outputs.shape[:2]
    rows, running = torch.arange(count), State(())
    for k in range(calls):
        fp32 = targets.state(table, k, rows)
        made = fp32.after(quantized_table or table, k, quantized(fp32.latent, k), noise)
        if k:
            repeated = None if noise is None else noise.repeat(1, k, *[1] * (noise.dim() - 2))
            running = running.after(table, k, exact(k)(running.latent, k), repeated)
            made = State(
                tuple(map(torch.cat, zip(running.latents, made.latents, strict=True))),
                tuple(map(torch.cat, zip(running.outputs, made.outputs, strict=True))),
            )
        running = made
        advance(k + 1)
    return running.latent.view(calls, count, *running.latent.shape[1:]) - targets.latents[-1]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where the power of an error comes from; the three add up to ``power``. Mean over samples, unbiased.

    Attributes:
        bias: of the mean over samples. rest: what would be left without it if the steps of a sample were independent.
        alike: what the steps of one sample add up to beyond that, and in the closed loop what the network makes of its own
            errors. Negative: they cancel out.
    """

    power: float
    bias: float
    alike: float
    rest: float

    def shares(self) -> tuple[float, float, float]:
        """``bias``, ``alike`` and ``rest`` as parts of the power; NaN without any."""
        return tuple(part / self.power if self.power else float("nan") for part in (self.bias, self.alike, self.rest))  # type: ignore[return-value]


@dataclass(frozen=True)
class Accumulation:
    """``final``: (S, D) error of the sample with all steps quantized. ``injected``: (N, S, D), one step each. float64."""

    final: Tensor
    injected: Tensor

    @classmethod
    def of(cls, final: Tensor, injected: Tensor) -> Accumulation:
        """Any shapes (S, ...) and (N, S, ...).

        Raises:
            ValueError: fewer than two samples, of which nothing is known of a bias.
        """
        if len(final) < 2:
            raise ValueError(f"got {len(final)} samples, at least 2 are needed to tell a bias from the rest")
        return cls(final.double().flatten(1), injected.double().flatten(2))

    @property
    def closed(self) -> Tensor:
        """(S,) power of the final error with all steps quantized, per sample: sum of squares."""
        return _power(self.final)

    @property
    def open(self) -> Tensor:
        """(S,) power of the sum of the steps' errors."""
        return _power(self.injected.sum(0))

    @property
    def incoherent(self) -> Tensor:
        """(S,) sum of the powers of the steps' errors: what the final error has if these are independent."""
        return _power(self.injected).sum(0)

    def scaled(self) -> Accumulation:
        """The same with every sample's errors divided by the root of its incoherent power, so that all count alike: where the
        power differs by orders of magnitude, one sample that went astray decides a sum. Samples without errors are left out."""
        known = self.incoherent > 0
        root = self.incoherent[known].sqrt().unsqueeze(1)
        return Accumulation(self.final[known] / root, self.injected[:, known] / root)

    def split(self, error: Tensor) -> Split:
        """The power of ``final`` or of ``injected.sum(0)``, (S, D)."""
        count = len(error)
        mean, deviations = error.mean(0), self.injected - self.injected.mean(1, keepdim=True)
        around = float(_power(error - mean).sum()) / (count - 1)
        rest = float(_power(deviations).sum()) / (count - 1)
        bias = float(_power(mean)) - around / count
        return Split(power=float(_power(error).mean()), bias=bias, alike=around - rest, rest=rest)

    def correlation(self, *, without_bias: bool = False) -> Tensor:
        """(N, N): cosine of the final errors of two steps, mean over samples; 0 where a step makes none.

        Args:
            without_bias: of what is left of them without their means over samples.
        """
        errors = self.injected - self.injected.mean(1, keepdim=True) if without_bias else self.injected
        norms = errors.norm(dim=2, keepdim=True)
        unit = errors / norms.where(norms > 0, 1.0)
        return torch.einsum("jsd,ksd->jk", unit, unit) / errors.shape[1]

    def figures(self) -> dict[str, Any]:
        """All of it as plain values; ratios are over the incoherent sum. None: what does not exist without errors."""
        known, scaled = self.incoherent > 0, self.scaled()
        enough = len(scaled.final) > 1
        return {
            "closed_power": self.closed.tolist(),
            "open_power": self.open.tolist(),
            "incoherent_power": self.incoherent.tolist(),
            "closed_ratio": _spread((self.closed / self.incoherent)[known]),
            "open_ratio": _spread((self.open / self.incoherent)[known]),
            "closed_split": vars(self.split(self.final)),
            "open_split": vars(self.split(self.injected.sum(0))),
            "closed_split_scaled": vars(scaled.split(scaled.final)) if enough else None,
            "open_split_scaled": vars(scaled.split(scaled.injected.sum(0))) if enough else None,
            "step_power": _power(self.injected).mean(1).tolist(),
            "correlation": self.correlation().tolist(),
            "correlation_without_bias": self.correlation(without_bias=True).tolist(),
        }


def _power(error: Tensor) -> Tensor:
    return error.square().sum(-1)


def _spread(ratios: Tensor) -> dict[str, float] | None:
    if not len(ratios):
        return None
    low, middle, high = ratios.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist()
    return {"p10": low, "median": middle, "p90": high}
