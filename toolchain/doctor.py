"""Is a bundle whole, and do its parts belong together? Asked before it is copied to a device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from dq_toolchain.toolchain.bundle import JSON, Bundle, bundle_hash
from dq_toolchain.toolchain.checks import Check
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.reference import Reference
from dq_toolchain.toolchain.report import JSON as REPORT
from dq_toolchain.toolchain.report import TENSORS
from dq_toolchain.toolchain.schemas import first_fault

MADE_BY_DEVICES = (JSON, REPORT, TENSORS, "engines")
"""What may lie in a bundle's folder though bundle.json does not list it."""


def examine(folder: Path) -> tuple[Check, ...]:
    """Every check doctor.NAME, all of them even if some fail, up to the one that makes the others impossible.

    Raises:
        ArtifactError: the folder holds no bundle.json that can be read, or it was changed; the text names the file.
    """
    bundle = Bundle.load(folder)  # hashes of all files, and the seal
    text = (folder / JSON).read_text(encoding="utf-8")
    size = sum(bundle.sizes.values())
    checks = [
        Check("doctor.files", True, None, f"{len(bundle.files)} files, {size / 1e6:.1f} MB, all as they were written"),
        _schema(text), _stray(folder, bundle),
    ]
    try:
        reference = bundle.reference(folder)
    except ArtifactError as error:
        return (*checks, Check("doctor.reference", False, None, str(error)))
    return (*checks, *_reference(bundle, reference), _inputs(bundle, reference), _ranges(folder, bundle),
            _limits(bundle, reference), *_report(folder))


def _schema(text: str) -> Check:
    fault = first_fault("bundle", json.loads(text))
    return Check("doctor.schema", fault is None, None, fault or "bundle.json is as the schema says")


def _stray(folder: Path, bundle: Bundle) -> Check:
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    stray = [name for name in found if name not in bundle.files and name.split("/")[0] not in MADE_BY_DEVICES]
    text = f"{stray[0]} is not part of the bundle ({len(stray)} such files); do not copy it, or delete it" if stray else ""
    return Check("doctor.stray", not stray, None, text or "no file that does not belong there")


def _reference(bundle: Bundle, reference: Reference) -> Iterator[Check]:
    table, shape = bundle.table, tuple(reference.start.shape[1:])
    fits = reference.calls == table.calls
    yield Check("doctor.steps", fits, None, f"{reference.calls} steps in the reference, {table.calls} in the sampler table")
    wanted = bundle.inputs[0].shape[1:]
    yield Check("doctor.shapes", shape == wanted, None, f"latents are {shape}, the program takes {wanted}")
    tensors = (reference.start, reference.fp32_latents, reference.simulation_latents, reference.simulation_outputs,
               reference.fp32_outputs_at_simulation)
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
    yield Check("doctor.finite", finite, None, "the reference is finite" if finite else "the reference holds NaN or infinity")
    noisy = table.stochastic == (reference.step_noise is not None)
    yield Check("doctor.noise", noisy, None, "the sampler adds noise" if table.stochastic else "the sampler adds no noise")


def _inputs(bundle: Bundle, reference: Reference) -> Check:
    known = {"sample", "timestep", "ranges"}
    wanted = {port.name: (port.dtype, port.shape[1:]) for port in bundle.inputs if port.name not in known}
    found = {name: (str(x.dtype).removeprefix("torch."), tuple(x.shape[1:])) for name, x in reference.conditioning.cond.items()}
    guided = bundle.guidance != 1.0
    uncond = set(reference.conditioning.uncond) == set(found) if guided else True
    text = f"conditioning {', '.join(sorted(found)) or 'none'}{', with guidance' if guided else ''}"
    return Check("doctor.conditioning", wanted == found and uncond, None,
                 text if wanted == found and uncond else f"the program takes {wanted}, the reference holds {found}")


def _ranges(folder: Path, bundle: Bundle) -> Check:
    try:
        ranges = bundle.ranges(folder)
    except ArtifactError as error:
        return Check("doctor.ranges", False, None, str(error))
    finite = ranges is None or bool(torch.isfinite(ranges).all())
    form = "scales are fixed in the program" if ranges is None else f"ranges of {len(ranges)} step groups"
    return Check("doctor.ranges", finite, None, form if finite else "ranges hold NaN or infinity")


def _limits(bundle: Bundle, reference: Reference) -> Check:
    fidelity = bundle.limits.get("fidelity", {})
    steps, seeds = len(fidelity.get("error", ())), len(fidelity.get("simulation_psnr", ()))
    good = (steps, seeds) == (reference.calls, reference.seeds) and "conformance" in bundle.limits
    return Check("doctor.limits", good, None, f"limits for {steps} steps and {seeds} seeds, the reference has {reference.calls} "
                                              f"and {reference.seeds}")


def _report(folder: Path) -> Iterator[Check]:
    """A report of another bundle that lies beside this one misleads."""
    path = folder / REPORT
    if path.is_file():
        try:
            own = json.loads(path.read_text(encoding="utf-8")).get("bundle_sha256") == bundle_hash(folder)
        except (ValueError, AttributeError):
            own = False
        yield Check("doctor.report", own, None, "the report beside it is of this bundle" if own else
                    f"{path.name} beside it was made with another bundle; delete it")
