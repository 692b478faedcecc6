"""Is a bundle whole, and do its parts belong together? Asked before it is copied to a device.

``Bundle.load`` refuses what no program could run; here stands what fits badly, all of it, not only the first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dq_toolchain.toolchain.checks import Check
from dq_toolchain.toolchain.disk.reading import read_json
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import JSON, REMEDY, Bundle, bundle_hash
from dq_toolchain.toolchain.formats.bundle_checks import reference_checks
from dq_toolchain.toolchain.formats.reference import FILE, Reference
from dq_toolchain.toolchain.formats.report import JSON as REPORT
from dq_toolchain.toolchain.formats.report import TENSORS
from dq_toolchain.toolchain.verdict.limits import limits_for

MADE_BY_DEVICES = (JSON, REPORT, TENSORS, "engines")
"""What may lie in a bundle's folder though bundle.json does not list it."""
WIDEST = 10
"""Times. Forms that quantize outputs too have limits of their own, from a simulation that the reference does not hold."""


def examine(
    folder: Path, of_program: Callable[[Bundle, Path], tuple[Check, ...]] = lambda bundle, folder: ()
) -> tuple[Check, ...]:
    """Every check doctor.NAME, all of them even if some fail, up to the one that makes the others impossible.

    Args:
        of_program: what the backend of the target has to say, which the core does not know.
    Raises:
        ArtifactError: the folder holds no bundle that can be read, or it was changed; the text names the file.
    """
    bundle = Bundle.load(folder)  # schema, seal, names and hashes of all files
    size = sum(bundle.sizes.values())
    checks = [
        Check("doctor.files", True, None, f"{len(bundle.files)} files, {size / 1e6:.1f} MB, all as they were written"),
        Check("doctor.schema", True, None, "bundle.json is as the schema says"),
        _stray(folder, bundle),
        *of_program(bundle, folder),
    ]
    try:
        reference = Reference.load(folder / FILE, REMEDY)
    except ArtifactError as error:
        return (*checks, Check("doctor.reference", False, None, str(error)))
    fitting = tuple(reference_checks(bundle, reference))
    own = (*fitting, _ranges(folder, bundle), *_step_vectors(folder, bundle), _limits(bundle, reference))
    return (*checks, *own, *_samplings(folder, bundle), *_report(folder))


def _stray(folder: Path, bundle: Bundle) -> Check:
    """Nothing is followed: a link may lead anywhere, and a FIFO waits."""
    stray = []
    for place, folders, files in os.walk(folder):
        for name in sorted((*folders, *files)):
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                stray.append(f"{relative} is a link, FIFO or device, it")
            elif path.is_file() and relative not in bundle.files and relative.split("/")[0] not in MADE_BY_DEVICES:
                stray.append(relative)
    text = (
        f"{stray[0]} is not part of the bundle ({len(stray)} such files); do not copy it, or delete it" if stray else ""
    )
    return Check("doctor.stray", not stray, None, text or "no file that does not belong there")


def _samplings(folder: Path, bundle: Bundle) -> Iterator[Check]:
    """The same of the other step counts and guidance scales, a check each: doctor.sampling."""
    for sampling in (each.sampling for each in bundle.samplings):
        view = bundle.at(sampling.steps, sampling.guidance)
        try:
            reference = Reference.load(folder / view.reference_file, REMEDY)
            checks = (*reference_checks(view, reference), *_step_vectors(folder, view), _limits(view, reference))
            faults = [check for check in checks if not check.passed]
        except ArtifactError as error:
            faults = [Check("doctor.sampling", False, None, str(error))]
        text = f"{sampling.name}: {faults[0].detail if faults else 'reference and limits fit'}"
        yield Check("doctor.sampling", not faults, None, text)


def _ranges(folder: Path, bundle: Bundle) -> Check:
    try:
        ranges = bundle.ranges(folder)
    except ArtifactError as error:
        return Check("doctor.ranges", False, None, str(error))
    if ranges is None:
        return Check("doctor.ranges", True, None, "scales are fixed in the program")
    return Check("doctor.ranges", True, None, f"ranges of {len(ranges)} step groups")


def _step_vectors(folder: Path, bundle: Bundle) -> Iterator[Check]:
    """Only of a program that takes them: doctor.step_vectors."""
    try:
        rows = bundle.step_vectors(folder)
    except ArtifactError as error:
        yield Check("doctor.step_vectors", False, None, str(error))
        return
    if rows is not None:
        yield Check("doctor.step_vectors", True, None, f"step vectors of {len(rows)} network calls")


def _limits(bundle: Bundle, reference: Reference) -> Check:
    """Limits follow from the reference, or from it and a simulation of the same integers that quantizes outputs too."""
    arithmetic = bundle.limits["conformance"].get("arithmetic", 0.0)
    fidelity, computed = bundle.limits["fidelity"], limits_for(reference, arithmetic=arithmetic)["fidelity"]
    steps, seeds = len(fidelity["error"]), len(fidelity["simulation_psnr"])
    if (steps, seeds) != (reference.calls, reference.seeds):
        return Check(
            "doctor.limits",
            False,
            None,
            f"limits for {steps} steps and {seeds} seeds, the reference has {reference.calls} and {reference.seeds}",
        )
    pairs = zip(fidelity["error"], computed["error"], strict=True)
    if any(not wanted / WIDEST <= found <= wanted * WIDEST for found, wanted in pairs):
        return Check(
            "doctor.limits",
            False,
            None,
            f"limits.fidelity.error is over {WIDEST} times what follows from the reference; {REMEDY}",
        )
    return Check("doctor.limits", True, None, f"limits for {steps} steps and {seeds} seeds")


def _report(folder: Path) -> Iterator[Check]:
    """A report of another bundle that lies beside this one misleads."""
    path = folder / REPORT
    if not path.is_file():
        return
    try:
        data = read_json(path, error=ArtifactError, remedy="delete it")
    except ArtifactError as error:
        yield Check("doctor.report", False, None, str(error))
        return
    own = data.get("bundle_sha256") == bundle_hash(folder)
    yield Check(
        "doctor.report",
        own,
        None,
        "the report beside it is of this bundle"
        if own
        else f"{path.name} beside it was made with another bundle; delete it",
    )
