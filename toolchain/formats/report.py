"""The device report: what a runtime measured, in one JSON form for all targets, with the latents beside it.

``run`` and the programs on devices write it, ``validate`` reads it and believes none of its figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from dq_toolchain.toolchain.disk.files import (
    check_hashes,
    discard,
    read_json,
    read_tensors,
    write_hashed_tensors,
    write_json,
)
from dq_toolchain.toolchain.disk.reading import reason
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.formats.schemas import first_fault
from dq_toolchain.toolchain.metrics import median, psnr, rollout_error, ssim

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA, VERSION = "dq-toolchain/report", 1
JSON, TENSORS = "report.json", "report.safetensors"
PICTURES = "pictures.safetensors"
"""What the device's decoder made, of a bundle with the whole pipeline (``toolchain.parts.chain``)."""
OUTPUTS = "outputs_at_simulation"
REMEDY = "run `dq-toolchain run` (or the program on the device) again"
LARGEST_HEADER = 2**20
"""Bytes of report.safetensors beside its numbers."""


@dataclass(frozen=True)
class DeviceReport:
    """A report as read. N network calls, S seeds.

    Attributes:
        path: the report.json it came from.
        data: its JSON, valid by report.schema.json; the figures in it are the runtime's claims.
        latents: (N+1, S, C, H, W) float32, the device's own rollout.
        outputs_at_simulation: (N, S, C, H, W) float32, its outputs after guidance at the simulation's latents; None if
            the device was told to leave them out.
    """

    path: Path
    data: Mapping[str, Any]
    latents: Tensor
    outputs_at_simulation: Tensor | None

    @property
    def bundle_folder(self) -> Path:
        """Where the report says that its bundle lies."""
        return self.path.parent / str(self.data["bundle"])

    def check_against(self, reference: Reference) -> None:
        """Raise ArtifactError unless steps, seeds and shapes are those of the reference."""
        _check_shapes(self.latents, self.outputs_at_simulation, reference, str(self.path))
        for name, rows, want in (
            ("step_ms", self.data["step_ms"], reference.calls),
            ("per_step", self.data["per_step"], reference.calls),
            *((f"final.{n}", v, reference.seeds) for n, v in self.data["final"].items()),
        ):
            if len(rows) != want:
                raise ArtifactError(f"{self.path}: {name} has {len(rows)} entries, the bundle has {want}; {REMEDY}")
        if [row["step"] for row in self.data["per_step"]] != list(range(reference.calls)):
            raise ArtifactError(f"{self.path}: per_step must list the steps 0-{reference.calls - 1} in order; {REMEDY}")


def first_seeds(reference: Reference, count: int) -> Reference:
    """The reference of the first ``count`` held-out seeds, for a device that ran only those."""
    if count >= reference.seeds:
        return reference
    noise = None if reference.step_noise is None else reference.step_noise[:, :count]
    program = None if reference.program_latents is None else reference.program_latents[:, :count]
    return Reference(
        start=reference.start[:count],
        conditioning=reference.conditioning.select(slice(count)),
        step_noise=noise,
        fp32_latents=reference.fp32_latents[:, :count],
        simulation_latents=reference.simulation_latents[:, :count],
        simulation_outputs=reference.simulation_outputs[:, :count],
        fp32_outputs_at_simulation=reference.fp32_outputs_at_simulation[:, :count],
        program_latents=program,
    )


def figures(latents: Tensor, reference: Reference) -> dict[str, Any]:
    """``per_step`` and ``final`` of a report, as plain JSON values; what is not finite becomes None.

    Args:
        latents: (N+1, S, C, H, W) float32, the device's own rollout.
    """
    fp32 = rollout_error(latents, reference.fp32_latents)
    simulation = rollout_error(latents, reference.simulation_latents)
    last, wanted = latents[-1], reference.fp32_latents[-1]
    return {
        "per_step": [
            {"step": k, "error_fp32": _plain(a), "error_simulation": _plain(b)}
            for k, (a, b) in enumerate(zip(median(fp32), median(simulation), strict=True))
        ],
        "final": {"psnr": [_plain(v) for v in psnr(last, wanted)], "ssim": [_plain(v) for v in ssim(last, wanted)]},
    }


def write_report(
    folder: Path,
    header: Mapping[str, Any],
    latents: Tensor,
    outputs_at_simulation: Tensor,
    reference: Reference,
    pictures: Mapping[str, Tensor] | None = None,
) -> Path:
    """Compute the figures and write report.safetensors, then report.json; returns the path of the latter.

    Args:
        header: target, runtime {name, version}, device, versions, compute_unit, bundle_sha256 (of bundle.json),
            bundle (folder, relative to the report), load_ms, step_ms (N), peak_memory_bytes (None if unknown).
        latents: (N+1, S, C, H, W) float32. outputs_at_simulation: (N, S, C, H, W) float32.
        reference: of the seeds that were run (``first_seeds`` if not all).
        pictures: by stage of the chain (S, 3, H, W) uint8; None or empty: the bundle makes none.
    Raises:
        ArtifactError: a header field is missing or wrong, or the shapes are not those of the reference.
        ToolchainError: the folder cannot be written.
    """
    path = folder / JSON
    _check_shapes(latents, outputs_at_simulation, reference, "the device's tensors")
    discard(path)
    files = {TENSORS: write_hashed_tensors(folder / TENSORS, {"latents": latents, OUTPUTS: outputs_at_simulation})}
    discard(folder / PICTURES)
    if pictures:
        files[PICTURES] = write_hashed_tensors(folder / PICTURES, pictures)
    data = {
        "schema": SCHEMA,
        "schema_version": VERSION,
        **header,
        "files": files,
        **figures(latents, reference),
    }
    _check_schema(data, path)
    write_json(path, data)
    return path


def read_claims(path: Path) -> tuple[Path, dict[str, Any]]:
    """The path of report.json (``path``, or in the folder ``path``) and its content, valid by report.schema.json.

    Raises:
        ArtifactError: missing, damaged, of another schema version; the text names the file and the place.
    """
    path = path / JSON if path.is_dir() else path
    data = read_json(path, SCHEMA, VERSION, REMEDY)
    _check_schema(data, path)
    return path, data


def load_report(path: Path, within: Reference | None = None) -> DeviceReport:
    """Read report.json (or a folder that holds it) and the latents beside it.

    Args:
        within: the reference that the shapes must fit, with as many seeds or fewer: seen before memory is taken.
    Raises:
        ArtifactError: missing, damaged, edited, of another schema version, of other shapes; the text names the file and
            the place.
    """
    path, data = read_claims(path)
    file = path.parent / TENSORS
    if within is not None:
        _check_size(file, within)
    check_hashes(path.parent, data["files"], REMEDY)
    shapes = _float32_shapes(file)
    if set(shapes) not in ({"latents"}, {"latents", OUTPUTS}):
        raise ArtifactError(
            f"{file} must hold latents and {OUTPUTS}, got {', '.join(sorted(shapes)) or 'nothing'}; {REMEDY}"
        )
    for name, shape in shapes.items():
        _check_shape(name, shape, within, str(file))
    tensors = read_tensors(file, REMEDY)
    return DeviceReport(path, data, tensors["latents"], tensors.get(OUTPUTS))


def _check_size(file: Path, reference: Reference) -> None:
    most = 4 * (reference.fp32_latents.numel() + reference.simulation_outputs.numel()) + LARGEST_HEADER
    if file.is_file() and file.stat().st_size > most:
        raise ArtifactError(
            f"{file} has {file.stat().st_size:,} bytes, for all seeds of the bundle at most {most:,} are allowed; "
            f"{REMEDY}"
        )


def _float32_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name, from the header alone. Raises ArtifactError: damaged, or a tensor is not float32."""
    try:
        with safe_open(str(file), framework="numpy") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in parts.items()}
            dtypes = {name: str(part.get_dtype()) for name, part in parts.items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"cannot read {file}: {reason(error)}; {REMEDY}") from error
    for name, dtype in dtypes.items():
        if dtype != "F32":
            raise ArtifactError(f"{file}: {name} is of dtype {dtype}, it must be F32; {REMEDY}")
    return shapes


def _check_shape(name: str, shape: tuple[int, ...], within: Reference | None, where: str) -> None:
    axes = None if within is None else within.fp32_latents.dim()
    if len(shape) < 4 or len(shape) != (axes or len(shape)) or 0 in shape:
        raise ArtifactError(
            f"{where}: {name} has shape {shape}, expected {axes or 'four or more'} axes (steps, seeds, channels, and the sample's "
            f"others, such as height and width), none empty; {REMEDY}"
        )
    if within is not None:
        whole = tuple((within.fp32_latents if name == "latents" else within.simulation_outputs).shape)
        if (shape[0], *shape[2:]) != (whole[0], *whole[2:]) or shape[1] > whole[1]:
            raise ArtifactError(
                f"{where}: {name} has shape {shape}, the bundle expects {whole}, or fewer seeds (axis 1); {REMEDY}"
            )


def _check_schema(data: Mapping[str, Any], path: Path) -> None:
    fault = first_fault("report", data)
    if fault is not None:
        raise ArtifactError(f"{path}: {fault}; {REMEDY}")


def _check_shapes(latents: Tensor, outputs: Tensor | None, reference: Reference, where: str) -> None:
    for name, tensor, want in (
        ("latents", latents, reference.fp32_latents),
        (OUTPUTS, outputs, reference.simulation_outputs),
    ):
        if tensor is not None and tensor.shape != want.shape:
            raise ArtifactError(
                f"{where}: {name} has shape {tuple(tensor.shape)}, the bundle expects {tuple(want.shape)}; {REMEDY}"
            )


def _plain(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
