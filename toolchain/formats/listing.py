"""The calibration artifact as far as it is shown: what needs no network and no torch, and so answers at once.

Whether integers, float parameters and architecture belong together is for ``Artifact.load``, which export calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.disk.files import check_hashes, check_seal, read_arrays, read_json
from dq_toolchain.toolchain.errors import ArtifactError, SamplerError
from dq_toolchain.toolchain.formats.bundle_checks import STEP_VECTORS, file_fault
from dq_toolchain.toolchain.formats.output_ranges import OutputRanges
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE
from dq_toolchain.toolchain.formats.schemas import first_fault
from dq_toolchain.toolchain.quant.site import FloatOp, Site
from dq_toolchain.toolchain.sampler.samplings import Sampling, chosen
from dq_toolchain.toolchain.sampler.step_groups import check_step_groups
from dq_toolchain.toolchain.sampler.table import SamplerTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA, VERSION = "dq-toolchain/calibration", 1
JSON = "calibration.json"
REMEDY = "run `dq-toolchain calibrate` again"
TENSOR_FILES = ("weights.safetensors", "activations.safetensors", "float.safetensors")
FILES = (*TENSOR_FILES, STEP_VECTORS, REFERENCE, JSON)
DAMAGED = (KeyError, TypeError, ValueError, AttributeError, SamplerError)
"""What values of another kind than ``Artifact.save`` writes raise."""


@dataclass(frozen=True)
class Listing:
    """Attributes: as of ``Artifact``; ``scale`` (G, L) float32 and ``zero_point`` (G, L) int32 are numpy's."""

    model_id: str
    table: SamplerTable
    step_groups: tuple[tuple[int, ...], ...]
    sites: tuple[Site, ...]
    float_operations: tuple[FloatOp, ...]
    scale: NDArray[Any]
    zero_point: NDArray[Any]
    record: Mapping[str, Any]
    step_vectors: Mapping[str, Any] | None = None
    """As ``StepVectors.to_json`` writes it; None where the network takes the timestep."""
    output_ranges: OutputRanges | None = None

    @classmethod
    def load(cls, folder: Path) -> Listing:
        """Read calibration.json and the activation parameters of an artifact, and check every file's hash.

        Raises:
            ArtifactError: missing, damaged, edited or of another schema version; the text names the file.
        """
        data = read_calibration(folder)
        try:
            activations = read_arrays(folder / TENSOR_FILES[1], REMEDY)
            listing = cls(
                data["model_id"],
                SamplerTable.from_json(data["table"]),
                tuple(tuple(steps) for steps in data["step_groups"]),
                tuple(Site.from_json(site) for site in data["sites"]),
                tuple(FloatOp(*op) for op in data["float_operations"]),
                activations["scale"],
                activations["zero_point"],
                data["record"],
                data.get("step_vectors"),
                OutputRanges.of(data.get("outputs"), activations),
            )
        except DAMAGED as error:
            raise damaged(folder, error) from error
        check_step_groups(listing.step_groups, listing.table.calls, f"{folder / JSON}: step groups")
        shape = (len(listing.step_groups), len(listing.sites))
        for name, array, dtype in (("scale", listing.scale, "float32"), ("zero_point", listing.zero_point, "int32")):
            if array.shape != shape or array.dtype != dtype:
                raise ArtifactError(
                    f"{folder}: {name} is {array.dtype} of shape {array.shape}, expected {dtype} of {shape}; {REMEDY}"
                )
        for site in listing.sites:
            if site.fault() is not None:
                raise ArtifactError(f"{folder}: site {site.name}: {site.fault()}; {REMEDY}")
        outputs = listing.output_ranges
        fault = None if outputs is None else outputs.fault(listing.sites, len(listing.step_groups))
        if fault is not None:
            raise ArtifactError(f"{folder}: {fault}; {REMEDY}")
        return listing


def read_calibration(folder: Path) -> dict[str, Any]:
    """``read_header``, after every file it names was compared with its hash. Raises ArtifactError."""
    data = read_header(folder)
    fault = file_fault(folder, data["files"], {})
    if fault is not None:
        raise ArtifactError(f"{folder / JSON} is damaged: {fault}; {REMEDY}")
    check_hashes(folder, data["files"], REMEDY)
    return data


def read_header(folder: Path) -> dict[str, Any]:
    """calibration.json, sealed and valid by its schema; no other file is looked at.

    Raises:
        ArtifactError: missing, damaged, edited or of another schema version; the text names the file.
    """
    data = read_json(folder / JSON, SCHEMA, VERSION, REMEDY)
    check_seal(folder / JSON, data, REMEDY)
    fault = first_fault("calibration", data)
    if fault is not None:
        raise ArtifactError(f"{folder / JSON} is damaged: {fault}; {REMEDY}")
    return data


def chosen_in(header: Mapping[str, Any], steps: Sequence[int], guidance: Sequence[float]) -> None:
    """Raise SamplerError for a step count or guidance scale that an artifact's calibration.json has no rollouts of."""
    samplings = tuple(map(Sampling.from_json, header.get("samplings", ())))
    chosen(samplings, header.get("steps", len(header["table"]["timesteps"])), header["guidance"], steps, guidance)


def damaged(folder: Path, error: Exception) -> ArtifactError:
    """What to raise for one of DAMAGED."""
    return ArtifactError(f"{folder / JSON} is damaged: {type(error).__name__} {str(error)[:300]}; {REMEDY}")
