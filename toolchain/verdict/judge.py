"""The verdict on a device report: fidelity and conformance apart, every figure computed anew from the latents.

Last link of the chain: ``show`` and ``page`` render what is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.checks import Check
from dq_toolchain.toolchain.errors import ArtifactError, SamplerError
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.formats.report import REMEDY, DeviceReport, figures, first_seeds, load_report, read_claims
from dq_toolchain.toolchain.metrics import median
from dq_toolchain.toolchain.parts.chain import load_chain
from dq_toolchain.toolchain.verdict.claims import check_claims
from dq_toolchain.toolchain.verdict.conformance import conformance, step_intervals, teacher_forced
from dq_toolchain.toolchain.verdict.fidelity import fidelity
from dq_toolchain.toolchain.verdict.limits import limits_of_judge
from dq_toolchain.toolchain.verdict.matching import Match, find_bundle
from dq_toolchain.toolchain.verdict.result import StepFigures, Verdict

if TYPE_CHECKING:
    from torch import Tensor

EXPORT = "run `dq-toolchain export` again"
NOT_MEASURED = Check(
    "conformance.measured",
    False,
    None,
    "the report holds no outputs at the simulation's latents; run the program on the device with --teacher-forced on",
)


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
    bundle = _sampler_of(data, Bundle.load(match.folder), path)
    if data["target"] != bundle.target:
        raise ArtifactError(f"{path}: target is {data['target']!r}, the bundle's is {bundle.target!r}; {REMEDY}")
    whole = bundle.reference(match.folder)
    _check_bundle(bundle, whole, match.folder)
    report = load_report(path, whole)
    report.check_against(first_seeds(whole, report.latents.shape[1]))
    return replace(judge(report, bundle, match, whole), chain=load_chain(report, match.folder))


def _sampler_of(data: Mapping[str, Any], bundle: Bundle, path: Path) -> Bundle:
    """The bundle at the step count and guidance that ran; of a report that says neither, the calibrated ones."""
    try:
        return bundle.at(data.get("steps"), data.get("guidance"))
    except SamplerError as error:
        raise ArtifactError(f"{path}: {error}; {REMEDY}") from error


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
    for name in (
        "start",
        "fp32_latents",
        "expected_latents",
        "simulation_latents",
        "simulation_outputs",
        "fp32_outputs_at_simulation",
    ):
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
                report.latents,
                report.outputs_at_simulation,
                reference,
                [steps for steps in bundle.step_groups if steps],
                limits["conformance"],
            ),
            check_claims(report.data, computed),
            computed["final"],
            _steps(report, bundle, reference, limits, computed),
            _notes(report, reference, limits, differing),
        )
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
        raise ArtifactError(
            f"the bundle's limits do not fit its reference ({type(error).__name__} "
            f"{' '.join(str(error).split())[:200]}); {EXPORT}"
        ) from error


def _notes(
    report: DeviceReport, reference: Reference, limits: Mapping[str, Any], differing: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    arithmetic = limits["conformance"].get("arithmetic")
    if arithmetic:
        notes.append(
            f"the limits leave room for this target's float arithmetic: {arithmetic:.2%} of an output beside the simulation's error"
        )
    outputs = report.outputs_at_simulation
    if report.latents.equal(reference.expected_latents) and (
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
    own = figures(reference.expected_latents, reference)["per_step"]
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
