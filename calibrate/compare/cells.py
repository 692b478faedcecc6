"""A finished cell on disk: ``cell.json``, written last, and the samples that its figures come from.

A cell counts only if its fingerprint is that of the recipe at hand; a killed run leaves no ``cell.json`` behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dq_toolchain.calibrate.compare.evaluate import Evaluation, StepErrors, pictures_of
from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.calibrate.compare.held_out import HeldOut
from dq_toolchain.calibrate.compare.sets import SetJudge
from dq_toolchain.toolchain.disk.files import read_json, read_tensors, write_json, write_tensors
from dq_toolchain.toolchain.errors import ArtifactError, ModelError
from dq_toolchain.toolchain.models.decoder import Decode

SCHEMA, VERSION = "dq-toolchain/compare-cell", 1
JSON, SAMPLES = "cell.json", "samples.safetensors"
REMEDY = "run `dq-toolchain compare` again"

Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class CellResult:
    """What came of a cell.

    Attributes:
        fingerprint: of recipe, model, versions and held-out seeds.
        reason: why it failed, None if it did not. attempts: how often it was tried.
        calibration_seconds: all stages, also those shared with other cells. wall_seconds: what this cell took here.
        figures: name -> value, None where there is no feature extractor; empty if it failed.
        extractor: its name, None without one; extractor_reason: why there is none.
        held_out_file: name of the file with the FP32 rollouts.
        provenance: recipe, versions and model, for readers.
        pictures_reason: why latents are shown instead of pictures, None if that is not so.
    """

    cell: Cell
    fingerprint: str
    attempts: int
    reason: str | None
    provenance: Mapping[str, Any]
    calibration_seconds: float = 0.0
    wall_seconds: float = 0.0
    figures: Figures | None = None
    extractor: str | None = None
    extractor_reason: str | None = None
    held_out_seeds: int = 0
    held_out_file: str = ""
    free_running: StepErrors | None = None
    teacher_forced: StepErrors | None = None
    pictures_reason: str | None = None

    @property
    def complete(self) -> bool:
        return self.figures is not None

    def evaluated(self, evaluation: Evaluation, held: HeldOut, judge: SetJudge) -> CellResult:
        """The same cell with its figures."""
        return replace(
            self,
            reason=None,
            figures={**evaluation.figures, **judge.figures(evaluation.samples)},
            extractor=judge.name,
            extractor_reason=judge.reason,
            held_out_seeds=len(held.samples),
            held_out_file=held.file.name,
            free_running=evaluation.free_running,
            teacher_forced=evaluation.teacher_forced,
        )

    def judged_again(self, samples: Tensor, judge: SetJudge) -> CellResult:
        """The same cell with the figures of another feature extractor."""
        figures = {**(self.figures or {}), **judge.figures(samples)}
        return replace(self, figures=figures, extractor=judge.name, extractor_reason=judge.reason)

    def save(self, folder: Path) -> None:
        """Write ``cell.json``. Raises ToolchainError: it cannot be written, or a figure is not finite."""
        status = "complete" if self.complete else "failed"
        data = asdict(self) | {"name": self.cell.name, "status": status}
        write_json(folder / JSON, {"schema": SCHEMA, "schema_version": VERSION, **data})


def save_samples(folder: Path, evaluation: Evaluation, held: HeldOut, decode: Decode | None) -> str | None:
    """Write the simulation's samples, and the first few of both as pixels. Raises ToolchainError: they cannot be written.

    Returns:
        Why latents are shown: the decoder failed, which costs the pictures and nothing else; None if it did not.
    """
    reason, pairs = None, (evaluation.samples, held.final)
    try:
        pictures = [pictures_of(samples, held.final, decode) for samples in pairs]
    except ModelError as error:
        reason, pictures = " ".join(str(error).split()), [pictures_of(samples, held.final) for samples in pairs]
    tensors = {"samples": evaluation.samples, "pictures": pictures[0], "fp32_pictures": pictures[1]}
    write_tensors(folder / SAMPLES, tensors)
    return reason


def load_samples(folder: Path) -> dict[str, Tensor]:
    """``samples`` (S, C, H, W) float32, ``pictures`` and ``fp32_pictures`` uint8. Raises ArtifactError."""
    return read_tensors(folder / SAMPLES, REMEDY)


def load_result(folder: Path, fingerprint: str) -> CellResult | None:
    """The cell in a folder; None if there is none, it is damaged, or it is of another recipe."""
    try:
        data = read_json(folder / JSON, SCHEMA, VERSION, REMEDY)
        fields = {name: data[name] for name in CellResult.__dataclass_fields__ if name != "pictures_reason"}
        fields["pictures_reason"] = data.get("pictures_reason")
        for name in ("free_running", "teacher_forced"):
            if fields[name] is not None:
                fields[name] = StepErrors(**{key: tuple(values) for key, values in fields[name].items()})
        result = CellResult(**fields | {"cell": Cell(**fields["cell"])})
    except (ArtifactError, KeyError, TypeError, AttributeError):
        return None
    whole = not result.complete or (folder / SAMPLES).is_file()
    return result if whole and result.fingerprint == fingerprint else None
