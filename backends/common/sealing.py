"""The last thing a lowering does: describe the files of a bundle folder and write bundle.json."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dq_toolchain.backends.common.call import Call
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle, Operation, OtherSampling
from dq_toolchain.toolchain.formats.site_rows import site_rows


def seal_bundle(
    folder: Path,
    artifact: Artifact,
    call: Call,
    *,
    target: str,
    form: str,
    program: str,
    methods: Sequence[str],
    operations: Sequence[Operation],
    limits: Mapping[str, Any],
    libraries: Sequence[str],
    samplings: Sequence[OtherSampling] = (),
) -> None:
    """Write bundle.json about everything that lies in ``folder``.

    Args:
        libraries: distributions that made the program.
        samplings: what ``other_samplings`` wrote.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    Bundle(
        target=target, form=form, model_id=artifact.model_id, weight_hash=artifact.weight_hash,
        versions={name: version(name) for name in (*libraries, "torch", "diffusers")} | {"python": platform.python_version()},
        program=program, inputs=call.inputs, outputs=(call.output,), step_groups=artifact.step_groups,
        methods=tuple(methods), table=artifact.table, guidance=artifact.guidance, limits=limits,
        operations=tuple(operations), sites=tuple(site_rows(artifact)),
        sizes={name: (folder / name).stat().st_size for name in names},
        files={name: sha256(folder / name) for name in names},
        steps=artifact.steps, samplings=tuple(samplings)).save(folder)  # fmt: skip
