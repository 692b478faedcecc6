"""The verdict on a device report: fidelity and conformance apart, every figure computed anew from the latents.

Last link of the chain: ``show`` and ``page`` render what is decided here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.checks import MINIMUM_SEEDS, Check, Outcome, more_seeds_of, overall, seeds_text
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.formats.report import REMEDY, DeviceReport, figures, first_seeds, load_report, read_claims
from dq_toolchain.toolchain.metrics import median
from dq_toolchain.toolchain.verdict.claims import check_claims
from dq_toolchain.toolchain.verdict.conformance import conformance, step_intervals, teacher_forced
from dq_toolchain.toolchain.verdict.fidelity import fidelity
from dq_toolchain.toolchain.verdict.limits import limits_of_judge
from dq_toolchain.toolchain.verdict.matching import Match, find_bundle

if TYPE_CHECKING:
    from torch import Tensor

WORST = 3
"""Seeds that are shown by name and as pictures, because a median hides them."""

EXPORT = "run `dq-toolchain export` again"
NOT_MEASURED = Check(
    "conformance.measured",
    False,
    None,
    "the report holds no outputs at the simulation's latents; run the program on the device with --teacher-forced on",
)


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
            "worst_seeds": [vars(each) for each in self.worst],
            "steps": [vars(row) for row in self.steps],
            "target": self.report.data["target"],
            "device": self.report.data["device"],
        }


def validate(report_path: Path, bundle_folder: Path | Sequence[Path] | None = None) -> Verdict:
    """Judge a device report, of all held-out seeds or the first few.

    Args:
        report_path: report.json, or the folder that holds it.
        bundle_folder: where the bundle lies here, or several folders, of which the report's hash chooses; None or none
            takes the place that the report names.
    Raises:
        ArtifactError: report or bundle is missing, damaged or edited, they do not belong together, or shapes differ.
    """
    path, data = read_claims(report_path)
    folders = (
        () if bundle_folder is None else (bundle_folder,) if isinstance(bundle_folder, Path) else tuple(bundle_folder)
    )
    match = find_bundle(path, data, folders)
    bundle = Bundle.load(match.folder)
    if data["target"] != bundle.target:
        raise ArtifactError(f"{path}: target is {data['target']!r}, the bundle's is {bundle.target!r}; {REMEDY}")
    whole = bundle.reference(match.folder)
    _check_bundle(bundle, whole, match.folder)
    report = load_report(path, whole)
    report.check_against(first_seeds(whole, report.latents.shape[1]))
    return judge(report, bundle, match, whole)


def _check_bundle(bundle: Bundle, whole: Reference, folder: Path) -> None:
    """Raise ArtifactError unless program and reference are of the same sampler and sample, and the reference can judge."""
    if whole.calls != bundle.table.calls:
        raise ArtifactError(
            f"{folder}: the reference has {whole.calls} steps, the sampler table {bundle.table.calls}; {EXPORT}"
        )
    sample = tuple(whole.start.shape[1:])
    if whole.start.dim() < 3 or not whole.start.numel() or [port.shape[1:] for port in bundle.outputs] != [sample]:
        raise ArtifactError(
            f"{folder}: the program must have one output of the sample's shape {sample}, got "
            f"{[port.shape for port in bundle.outputs]}; {EXPORT}"
        )
    for name in ("start", "fp32_latents", "simulation_latents", "simulation_outputs", "fp32_outputs_at_simulation"):
        tensor = getattr(whole, name)
        if str(tensor.dtype) != "torch.float32" or not bool(tensor.isfinite().all()):
            raise ArtifactError(
                f"{folder}: {name} of the reference must be finite float32, got {tensor.dtype} or NaN or infinity; "
                f"{EXPORT}"
            )


def judge(report: DeviceReport, bundle: Bundle, match: Match, whole: Reference) -> Verdict:
    """The verdict on a report whose shapes fit ``whole``, the reference of all held-out seeds.

    Raises:
        ArtifactError: the bundle's limits do not fit its reference.
    """
    reference = first_seeds(whole, report.latents.shape[1])
    computed = figures(report.latents, reference)
    try:
        limits, differing = limits_of_judge(bundle.limits, reference, whole)
        return Verdict(
            report,
            bundle,
            match,
            whole.seeds,
            reference,
            limits,
            fidelity(report.latents, reference, limits["fidelity"]),
            (NOT_MEASURED,)
            if report.outputs_at_simulation is None
            else conformance(
                report.latents, report.outputs_at_simulation, reference, bundle.step_groups, limits["conformance"]
            ),
            check_claims(report.data, computed),
            computed["final"],
            _steps(report, bundle, reference, limits, computed),
            _notes(report, reference, differing),
        )
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
        raise ArtifactError(
            f"the bundle's limits do not fit its reference ({type(error).__name__} "
            f"{' '.join(str(error).split())[:200]}); {EXPORT}"
        ) from error


def _notes(report: DeviceReport, reference: Reference, differing: Sequence[str]) -> tuple[str, ...]:
    notes = []
    outputs = report.outputs_at_simulation
    if report.latents.equal(reference.simulation_latents) and (
        outputs is None or outputs.equal(reference.simulation_outputs)
    ):
        notes.append(
            "bit-identical to the simulation in every number: another execution of the same integers hardly ever is; "
            "make sure that the report was computed on the device and not copied from the bundle"
        )
    if differing:
        notes.append(
            f"the limits in bundle.json are not those of its reference ({', '.join(differing[:3])}"
            f"{', ...' if len(differing) > 3 else ''}); judged by the reference's"
        )
    return tuple(notes)


def _finite(value: float | Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _steps(
    report: DeviceReport, bundle: Bundle, reference: Reference, limits: Mapping[str, Any], computed: Mapping[str, Any]
) -> tuple[StepFigures, ...]:
    nothing = reference.simulation_outputs.new_full(reference.simulation_outputs.shape, math.nan)
    forced = teacher_forced(
        nothing if report.outputs_at_simulation is None else report.outputs_at_simulation, reference
    )
    own = figures(reference.simulation_latents, reference)["per_step"]
    ratios, biases, apart = step_intervals(forced.log_ratio), forced.bias.mean(1), median(forced.difference)

    def ratio(logarithm: float) -> float | None:
        return math.exp(logarithm) if math.isfinite(logarithm) and logarithm < 700 else None

    return tuple(
        StepFigures(
            k,
            bundle.group_of_step[k],
            report.data["step_ms"][k],
            computed["per_step"][k]["error_fp32"],
            float(limits["fidelity"]["error"][k]),
            computed["per_step"][k]["error_simulation"],
            float(own[k]["error_fp32"]),
            ratio(ratios[k].estimate),
            ratio(ratios[k].low),
            ratio(ratios[k].high),
            _finite(biases[k]),
            _finite(apart[k]),
        )
        for k in range(reference.calls)
    )


def median_ms(verdict: Verdict) -> float | None:
    """Median over the steps of the time per network call in ms, as reported; None if it was not measured."""
    times = [float(time) for time in verdict.report.data["step_ms"] if time is not None]
    return statistics.median(times) if times else None
