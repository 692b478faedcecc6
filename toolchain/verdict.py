"""The verdict on a device report: fidelity and conformance apart, every figure computed anew from the latents.

Last link of the chain: ``show`` and ``page`` render what is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.toolchain.bundle import Bundle, bundle_hash
from dq_toolchain.toolchain.checks import Check
from dq_toolchain.toolchain.conformance import conformance, step_intervals, teacher_forced
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.fidelity import fidelity
from dq_toolchain.toolchain.limits import limits_for
from dq_toolchain.toolchain.reference import Reference
from dq_toolchain.toolchain.report import REMEDY, DeviceReport, figures, first_seeds, load_report, median

CLAIM_TOLERANCE = 1e-3
"""Relative; runtimes sum their figures in float32 and in another order (dB are absolute, hundredths)."""
CLAIM_TOLERANCE_DB = 0.02


NOT_MEASURED = Check("conformance.measured", False, None, "the report holds no outputs at the simulation's latents; run the "
                     "program on the device with --teacher-forced on")


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
class Verdict:
    """What ``validate`` decided, with what it was decided on.

    Attributes:
        reference: of the seeds that the device ran. limits: the bundle's, for that many seeds.
        claims: figures of the report that do not follow from its latents; each is a failed check.
        final: psnr and ssim, one value per seed, computed here.
        steps: one row per network call.
    """

    report: DeviceReport
    bundle: Bundle
    reference: Reference
    limits: Mapping[str, Any]
    fidelity: tuple[Check, ...]
    conformance: tuple[Check, ...]
    claims: tuple[Check, ...]
    final: Mapping[str, list[float | None]]
    steps: tuple[StepFigures, ...]

    @property
    def fidelity_passed(self) -> bool:
        return all(check.passed for check in self.fidelity)

    @property
    def conformance_passed(self) -> bool:
        return all(check.passed for check in self.conformance)

    @property
    def passed(self) -> bool:
        return self.fidelity_passed and self.conformance_passed and all(check.passed for check in self.claims)

    @property
    def first_step(self) -> int | None:
        """The first step that exceeds a limit, of either verdict."""
        steps = [c.step for c in (*self.fidelity, *self.conformance) if not c.passed and c.step is not None]
        return min(steps, default=None)

    def first_step_of(self, checks: tuple[Check, ...]) -> int | None:
        """The first step among the failed ones of ``checks``."""
        return min((c.step for c in checks if not c.passed and c.step is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for ``--json``."""
        def part(passed: bool, checks: tuple[Check, ...]) -> dict[str, Any]:
            return {"passed": passed, "first_step": self.first_step_of(checks), "checks": [c.to_json() for c in checks]}

        return {
            "passed": self.passed, "first_step": self.first_step,
            "fidelity": part(self.fidelity_passed, self.fidelity),
            "conformance": part(self.conformance_passed, self.conformance),
            "claims": part(all(c.passed for c in self.claims), self.claims),
            "final": {name: list(values) for name, values in self.final.items()},
            "steps": [vars(row) for row in self.steps],
            "target": self.report.data["target"], "device": self.report.data["device"],
        }


def validate(report_path: Path, bundle_folder: Path | None = None) -> Verdict:
    """Judge a device report, of all held-out seeds or the first few.

    Args:
        report_path: report.json, or the folder that holds it.
        bundle_folder: where the bundle lies here; None takes the place that the report names.
    Raises:
        ArtifactError: report or bundle is missing, damaged or edited, they do not belong together, or shapes differ.
    """
    report = load_report(report_path)
    folder = report.bundle_folder if bundle_folder is None else bundle_folder
    bundle = Bundle.load(folder)
    if bundle_hash(folder) != report.data["bundle_sha256"]:
        raise ArtifactError(f"{report.path} was made with another bundle than {folder} (bundle_sha256 differs); "
                            f"name its own with --bundle, or {REMEDY}")
    if report.data["target"] != bundle.target:
        raise ArtifactError(f"{report.path}: target is {report.data['target']!r}, the bundle's is {bundle.target!r}; "
                            f"{REMEDY}")
    whole = bundle.reference(folder)
    seeds = report.latents.shape[1] if report.latents.dim() == 5 else whole.seeds
    reference = first_seeds(whole, max(seeds, 1))
    report.check_against(reference)
    if reference.calls != bundle.table.calls:
        raise ArtifactError(f"{folder}: the reference has {reference.calls} steps, the sampler table "
                            f"{bundle.table.calls}; run `dq-toolchain export` again")
    return judge(report, bundle, reference)


def judge(report: DeviceReport, bundle: Bundle, reference: Reference) -> Verdict:
    """The verdict on a report whose shapes fit ``reference``. Raises ArtifactError: the bundle's limits do not."""
    computed = figures(report.latents, reference)
    try:
        limits = dict(bundle.limits)
        if reference.seeds < len(limits["fidelity"]["simulation_psnr"]):
            limits["fidelity"] = limits_for(reference)["fidelity"]
        return Verdict(
            report, bundle, reference, limits,
            fidelity(report.latents, reference, limits["fidelity"]),
            (NOT_MEASURED,) if report.outputs_at_simulation is None else conformance(
                report.latents, report.outputs_at_simulation, reference, bundle.step_groups, limits["conformance"]),
            check_claims(report.data, computed), computed["final"], _steps(report, bundle, reference, limits, computed),
        )
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ArtifactError(f"the bundle's limits do not fit its reference ({type(error).__name__} "
                            f"{' '.join(str(error).split())}); run `dq-toolchain export` again") from error


CLAIMS = {
    "claims.error_fp32": "error against FP32", "claims.error_simulation": "error against the simulation",
    "claims.psnr": "PSNR", "claims.ssim": "SSIM",
}  # fmt: skip


def check_claims(data: Mapping[str, Any], computed: Mapping[str, Any]) -> tuple[Check, ...]:
    """One check claims.NAME per kind of figure: what the report says against what its latents give."""
    found = []
    for name in ("error_fp32", "error_simulation"):
        pairs = [(row[name], again[name]) for row, again in zip(data["per_step"], computed["per_step"], strict=True)]
        found.append(_claim(f"claims.{name}", pairs, CLAIM_TOLERANCE, relative=True, per_step=True))
    for name, tolerance in (("psnr", CLAIM_TOLERANCE_DB), ("ssim", CLAIM_TOLERANCE)):
        if name in data["final"]:
            pairs = list(zip(data["final"][name], computed["final"][name], strict=True))
            found.append(_claim(f"claims.{name}", pairs, tolerance, relative=False, per_step=False))
    return tuple(found)


def _claim(name: str, pairs: list[tuple[float | None, float | None]], tolerance: float, *, relative: bool,
           per_step: bool) -> Check:
    place = "step" if per_step else "seed"
    for index, (claimed, computed) in enumerate(pairs):
        if claimed is None and computed is None:
            continue
        allowed = tolerance * (abs(computed or 0.0) + 1e-6 if relative else 1.0)
        if claimed is None or computed is None or not abs(claimed - computed) <= allowed:
            return Check(name, False, index if per_step else None,
                         f"{place} {index}: the report claims {_text(claimed)}, its latents give {_text(computed)}")
    return Check(name, True, None, f"{CLAIMS[name]} of {len(pairs)} {place}s as its latents give it")


def _text(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"


def _finite(value: float | Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _steps(report: DeviceReport, bundle: Bundle, reference: Reference, limits: Mapping[str, Any],
           computed: Mapping[str, Any]) -> tuple[StepFigures, ...]:
    nothing = torch.full_like(reference.simulation_outputs, math.nan)
    forced = teacher_forced(nothing if report.outputs_at_simulation is None else report.outputs_at_simulation, reference)
    own = figures(reference.simulation_latents, reference)["per_step"]
    ratios, biases, apart = step_intervals(forced.log_ratio), forced.bias.mean(1), median(forced.difference)

    def ratio(logarithm: float) -> float | None:
        return math.exp(logarithm) if math.isfinite(logarithm) and logarithm < 700 else None

    return tuple(
        StepFigures(
            k, bundle.group_of_step[k], report.data["step_ms"][k], computed["per_step"][k]["error_fp32"],
            float(limits["fidelity"]["error"][k]), computed["per_step"][k]["error_simulation"],
            float(own[k]["error_fp32"]), ratio(ratios[k].estimate), ratio(ratios[k].low), ratio(ratios[k].high),
            _finite(biases[k]), _finite(apart[k]),
        )
        for k in range(reference.calls)
    )
