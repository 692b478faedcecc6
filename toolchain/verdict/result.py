"""What a verdict is: the checks, the figures that they were decided on, and what would decide an open one."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.checks import MINIMUM_SEEDS, Check, Outcome, more_seeds_of, overall, seeds_text
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.formats.report import DeviceReport
from dq_toolchain.toolchain.verdict.matching import Match

if TYPE_CHECKING:
    from dq_toolchain.toolchain.parts.chain import Chain
    from dq_toolchain.toolchain.parts.clip_scores import ClipModel

WORST = 3
"""Seeds that are shown by name and as pictures, because a median hides them."""


@dataclass(frozen=True)
class StepFigures:
    """One row of the table of steps; None where it is not finite.

    Attributes:
        step, step_group: indices. step_ms: as reported.
        error_fp32, error_limit: median relative error of the device's latents after this step, and its limit.
        error_simulation: the same against the simulation's latents.
        simulation_error: the simulation's own median error against FP32.
        ratio, ratio_low, ratio_high: size of the output's error, device over simulation, with its interval.
        bias, difference: see ``conformance.TeacherForced``; mean and median over the seeds.
    """

    step: int
    step_group: int
    step_ms: float | None
    error_fp32: float | None
    error_limit: float
    error_simulation: float | None
    simulation_error: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    bias: float | None
    difference: float | None


@dataclass(frozen=True)
class WorstSeed:
    """One of the seeds with the lowest PSNR. ``psnr`` in dB, None where it is not finite; ``simulation_psnr``: the simulation's."""

    seed: int
    psnr: float | None
    simulation_psnr: float


@dataclass(frozen=True)
class Verdict:
    """What ``validate`` decided, with what it was decided on.

    Attributes:
        match: the bundle that judged, and who named it. held_out: seeds in it.
        reference: of the seeds that the device ran. limits: derived from it.
        claims: figures of the report that do not follow from its latents; each is a failed check.
        final: psnr and ssim, one value per seed, computed here.
        steps: one row per network call.
        notes: what a reader of the verdict should know, a sentence each.
        chain: pictures from the prompt on; None where the bundle makes none.
    """

    report: DeviceReport
    bundle: Bundle
    match: Match
    held_out: int
    reference: Reference
    limits: Mapping[str, Any]
    fidelity: tuple[Check, ...]
    conformance: tuple[Check, ...]
    claims: tuple[Check, ...]
    final: Mapping[str, list[float | None]]
    steps: tuple[StepFigures, ...]
    notes: tuple[str, ...]
    chain: Chain | None = None

    @property
    def checks(self) -> tuple[Check, ...]:
        return (*self.fidelity, *self.conformance, *self.claims)

    @property
    def outcome(self) -> Outcome:
        """ "fail" if any check failed, else "not decided" if any is, else "pass"."""
        return overall(self.checks)

    @property
    def passed(self) -> bool:
        return self.outcome == "pass"

    @property
    def failed(self) -> bool:
        return self.outcome == "fail"

    @property
    def fidelity_passed(self) -> bool:
        return overall(self.fidelity) == "pass"

    @property
    def conformance_passed(self) -> bool:
        return overall(self.conformance) == "pass"

    @property
    def more_seeds(self) -> int | None:
        """Further seeds after which it is decided; None if it is."""
        return more_seeds_of(self.checks) if self.outcome == "not decided" else None

    @property
    def worst(self) -> tuple[WorstSeed, ...]:
        """The seeds with the lowest PSNR, the worst first, what is not finite before all."""
        device, simulation = self.final["psnr"], self.limits["fidelity"]["simulation_psnr"]
        order = sorted(range(len(device)), key=lambda k: (device[k] is not None, device[k] or 0.0))
        return tuple(WorstSeed(k, device[k], float(simulation[k])) for k in order[:WORST])

    @property
    def first_step(self) -> int | None:
        """The first step that exceeds a limit, of either verdict."""
        return self.first_step_of((*self.fidelity, *self.conformance))

    def first_step_of(self, checks: tuple[Check, ...]) -> int | None:
        """The first step among the failed ones of ``checks``."""
        return min((c.step for c in checks if c.outcome == "fail" and c.step is not None), default=None)

    def remedy(self) -> str | None:
        """What decides a verdict that is not decided: how to get so many seeds; None of one that is."""
        if self.more_seeds is None:
            return None
        need = self.reference.seeds + self.more_seeds
        if need <= self.held_out:
            how = f"run the program on the device again with --seeds {need}, or without --seeds for all {self.held_out}"
        else:
            how = f"the bundle holds {self.held_out}: calibrate with [reference] seeds = {need} in the recipe, export and run again"
        return f"{seeds_text(self.more_seeds)} needed ({self.reference.seeds} seen); {how}"

    def scored(self, model: ClipModel) -> Verdict:
        """With what the model sees in the chain's pictures; it changes no check.

        Raises:
            ModelError: the model cannot see them.
        """
        from dq_toolchain.toolchain.parts.clip_scores import scored

        if self.chain is None:
            return replace(
                self, notes=(*self.notes, "no CLIP scores: the report holds no pictures of a whole pipeline")
            )
        return replace(self, chain=scored(self.chain, model), notes=(*self.notes, *model.notes_on(self.chain.prompts)))

    @property
    def sampler(self) -> str | None:
        """Which of the bundle's step counts and guidance scales was judged; None if it holds only one."""
        steps = self.bundle.steps
        return None if steps is None else f"{steps} steps, guidance {self.bundle.guidance:g}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for ``--json``."""

        def part(checks: tuple[Check, ...]) -> dict[str, Any]:
            return {
                "passed": overall(checks) == "pass",
                "verdict": overall(checks),
                "first_step": self.first_step_of(checks),
                "checks": [c.to_json() for c in checks],
            }

        return {
            "verdict": self.outcome,
            "passed": self.passed,
            "more_seeds": self.more_seeds,
            "remedy": self.remedy(),
            "first_step": self.first_step,
            "seeds": self.reference.seeds,
            "held_out_seeds": self.held_out,
            "sampler": self.sampler,
            "minimum_seeds": MINIMUM_SEEDS,
            "bundle": {
                "path": str(self.match.folder.resolve()),
                "sha256": self.match.sha256,
                "given": self.match.given,
            },
            "notes": list(self.notes),
            "fidelity": part(self.fidelity),
            "conformance": part(self.conformance),
            "claims": part(self.claims),
            "final": {name: list(values) for name, values in self.final.items()},
            **({} if self.chain is None else {"chain": self.chain.to_json()}),
            **({} if self.chain is None or self.chain.clip is None else {"clip": self.chain.clip.to_json()}),
            "worst_seeds": [vars(each) for each in self.worst],
            "steps": [vars(row) for row in self.steps],
            "target": self.report.data["target"],
            "device": self.report.data["device"],
        }


def median_ms(verdict: Verdict) -> float | None:
    """Median over the steps of the time per network call in ms, as reported; None if it was not measured."""
    times = [float(time) for time in verdict.report.data["step_ms"] if time is not None]
    return statistics.median(times) if times else None
