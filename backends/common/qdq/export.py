"""The order of an export: refuse, plan, write and audit, execute, and only then publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from dq_toolchain.backends.base import Execute, Runtime, Say
from dq_toolchain.backends.common.call import Call, example_call
from dq_toolchain.backends.common.checks import check_size
from dq_toolchain.backends.common.cost import Cost
from dq_toolchain.backends.common.fp16_range import check_by_running, coarse_in_fp16
from dq_toolchain.backends.common.parts import OpenPart, add_parts
from dq_toolchain.backends.common.qdq.audit import Expected, Sites
from dq_toolchain.backends.common.qdq.part_export import WritePart, lowering_of
from dq_toolchain.backends.common.qdq.plan import AsInput, plan_of
from dq_toolchain.backends.common.qdq.settings import QDQSettings
from dq_toolchain.backends.common.samplings import other_samplings
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.common.sealing import seal_bundle
from dq_toolchain.backends.common.smoke import IN_FP16, REPORT, smoke
from dq_toolchain.backends.common.staging import staging
from dq_toolchain.backends.common.step_rows import write_step_rows
from dq_toolchain.toolchain.disk.files import write_tensors
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.bundle import RANGES, Bundle, Operation
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE
from dq_toolchain.toolchain.parts.artifact import PartsArtifact

MAIN = "main"
"""The function of a program whose step groups are an input."""
SettingsT = TypeVar("SettingsT", bound=QDQSettings, contravariant=True)


def function_name(step_group: int) -> str:
    """The function of a step group."""
    return f"steps_g{step_group}"


def function_names(artifact: Artifact, expected: Expected) -> tuple[str, ...]:
    """The functions that a program must have, in the order of the step groups."""
    return (MAIN,) if expected.runtime else tuple(map(function_name, range(len(artifact.step_groups))))


@dataclass(frozen=True)
class Written:
    """A program on disk, audited.

    Attributes:
        program: its name in the folder.
        operations: the table of what runs in integers, what in float, and why; counted over all functions.
        sites: of the audit.
    """

    program: str
    operations: tuple[Operation, ...]
    sites: Sites


class Write(Protocol[SettingsT]):
    """Convert, write into ``folder``, read back and audit.

    Raises:
        BackendError: the vendor's library refuses the network, or the file differs from the artifact.
    """

    def __call__(
        self, artifact: Artifact, call: Call, settings: SettingsT, expected: Expected, folder: Path, say: Say
    ) -> Written: ...


def export(
    artifact: Artifact,
    artifact_folder: Path,
    out: Path,
    settings: SettingsT,
    say: Say,
    *,
    target: str,
    libraries: Sequence[str],
    check: Callable[[Artifact, SettingsT], None],
    as_input: AsInput,
    write: Write[SettingsT],
    execute: Callable[[Path, Schedule], tuple[Execute, Runtime]],
    parts: PartsArtifact | None,
    write_part: WritePart[SettingsT],
    open_part: OpenPart,
    cost: Cost,
) -> Bundle:
    """Write the bundle folder ``out``: the program, its reference, the parts, bundle.json last.

    Args:
        libraries: distributions that make the program.
        check: refuses what the target cannot hold.
        execute: (program, schedule) -> what executes it here.
        parts: text encoders and decoder; None: the network alone. cost: of the target's lowering.
    Raises:
        BackendError: a site cannot be held, the vendor's library refuses the network, the program differs from the
            artifact, or it does not execute as the simulation does. No bundle is left then.
        ToolchainError: ``out`` cannot be written.
    """
    check(artifact, settings)
    held_out = load_reference(artifact_folder)
    check_size(artifact, held_out, target)
    half = settings.precision == "fp16"
    if half:
        check_by_running(artifact, held_out, target)
        if coarse := coarse_in_fp16(artifact):
            say(coarse)
    plan = plan_of(artifact, held_out, settings, say, as_input)
    reference, ranges, groups = plan.reference, plan.ranges, artifact.group_of_step
    call = example_call(artifact, reference, None if ranges is None else ranges[:1])
    with staging(out) as folder:
        written = write(artifact, call, settings, plan.expected, folder, say)
        methods = tuple(written.sites)
        say("executing it once per step group")
        of_step = [methods[g if len(methods) > 1 else 0] for g in groups]
        schedule = Schedule(of_step, groups, ranges, artifact.step_rows)
        step, _ = execute(folder / written.program, schedule)
        remedy = IN_FP16 if half else REPORT
        smoke(step, artifact.table, artifact.guidance, groups, reference, remedy)
        reference.save(folder / REFERENCE)
        write_step_rows(artifact, folder)
        if ranges is not None:
            write_tensors(folder / RANGES, {"ranges": ranges})
        if parts is not None:
            lower_part = lowering_of(write_part, parts, artifact_folder, settings, say)
            add_parts(parts, artifact_folder, folder, lower_part, open_part, say, cost)
        seal_bundle(
            folder,
            artifact,
            call,
            target=target,
            form=plan.form,
            program=written.program,
            methods=methods,
            operations=written.operations,
            limits=plan.limits,
            libraries=libraries,
            samplings=other_samplings(artifact, artifact_folder, folder, plan.judged),
        )
    return Bundle.load(out)
