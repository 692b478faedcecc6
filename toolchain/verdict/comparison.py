"""Several device reports side by side: devices, targets, forms of one model."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dq_toolchain.toolchain.checks import Outcome, outcome_of, overall
from dq_toolchain.toolchain.metrics import median
from dq_toolchain.toolchain.verdict.result import Verdict, median_ms


@dataclass(frozen=True)
class Row:
    """One report in the comparison; None where it is unknown or not finite.

    Attributes:
        model: the model's id and the first digits of its weights' hash: rows of different models compare nothing.
        unit: what executed. emulated: whether times say nothing.
        verdict: "pass", "fail" or "not decided", and then ``more_seeds`` are needed; ``passed`` is verdict == "pass".
        bundle, bundle_sha256: which one judged: its folder here, the hash of its bundle.json.
        psnr, simulation_psnr: median over the seeds, dB. worst_psnr: the lowest.
        error: median relative error of the samples against FP32.
        ratio: size of the outputs' error, device over simulation, median over the steps.
        sampler: which of the bundle's step counts and guidance scales ran; None of a bundle that holds one.
    """

    report: str
    model: str
    target: str
    form: str
    device: str
    unit: str
    emulated: bool
    seeds: int
    verdict: Outcome
    more_seeds: int | None
    passed: bool
    fidelity: bool
    fidelity_verdict: Outcome
    conformance: bool
    conformance_verdict: Outcome
    first_step: int | None
    bundle: str
    bundle_sha256: str
    psnr: float | None
    worst_psnr: float | None
    simulation_psnr: float
    error: float | None
    ratio: float | None
    step_ms: float | None
    load_ms: float | None
    peak_memory_bytes: int | None
    model_bytes: int
    sampler: str | None


def row_of(verdict: Verdict) -> Row:
    """The row of one judged report."""
    import torch

    data, bundle = verdict.report.data, verdict.bundle
    psnr = [value for value in verdict.final["psnr"] if value is not None]
    simulation = torch.tensor(verdict.limits["fidelity"]["simulation_psnr"], dtype=torch.float64)
    ratios = [row.ratio for row in verdict.steps if row.ratio is not None]
    whole = len(psnr) == len(verdict.final["psnr"])
    return Row(
        report=str(verdict.report.path), model=f"{bundle.model_id} {bundle.weight_hash[:8]}", target=bundle.target,
        form=bundle.form, device=str(data["device"]), unit=f"{data['runtime']['name']}, {data['compute_unit']}",
        emulated=bool(data.get("emulated")), seeds=verdict.reference.seeds, verdict=verdict.outcome,
        more_seeds=verdict.more_seeds, passed=verdict.passed, fidelity=verdict.fidelity_passed,
        fidelity_verdict=overall(verdict.fidelity), conformance=verdict.conformance_passed,
        conformance_verdict=overall(verdict.conformance), first_step=verdict.first_step,
        bundle=str(verdict.match.folder.resolve()), bundle_sha256=verdict.match.sha256,
        psnr=float(median(torch.tensor(psnr, dtype=torch.float64))) if whole and psnr else None,
        worst_psnr=verdict.worst[0].psnr, simulation_psnr=float(median(simulation)), error=verdict.steps[-1].error_fp32,
        ratio=statistics.median(ratios) if ratios else None, step_ms=median_ms(verdict), load_ms=data["load_ms"],
        peak_memory_bytes=data["peak_memory_bytes"], model_bytes=_model_bytes(verdict),
        sampler=verdict.sampler)  # fmt: skip


def _model_bytes(verdict: Verdict) -> int:
    program = verdict.bundle.program
    sizes = [size for name, size in verdict.bundle.sizes.items() if name == program or name.startswith(f"{program}/")]
    return sum(size for size in sizes if isinstance(size, int) and size >= 0)


def to_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Plain JSON values, for ``--json``."""
    outcome = outcome_of([verdict.outcome for verdict in verdicts])
    more = max((verdict.more_seeds for verdict in verdicts if verdict.more_seeds is not None), default=None)
    return {
        "verdict": outcome,
        "passed": outcome == "pass",
        "more_seeds": more if outcome == "not decided" else None,
        "reports": [
            vars(row_of(verdict))
            | {"notes": list(verdict.notes)}
            | ({} if verdict.chain is None or verdict.chain.clip is None else {"clip": verdict.chain.clip.to_json()})
            for verdict in verdicts
        ],
    }


def note_of(rows: Sequence[Row]) -> str | None:
    """What makes the rows hard to compare, None if nothing does."""
    if len({row.model for row in rows}) > 1:
        return "the reports are of different models: compare each with its own simulation only"
    if len({row.seeds for row in rows}) > 1:
        return "the reports hold different numbers of seeds: medians are over different samples"
    if len({row.sampler for row in rows}) > 1:
        return "the reports are of different step counts or guidance scales: each is compared with FP32 at its own"
    return None
