"""Everything that is proven of a saved asset without executing it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dq_toolchain.backends.common.qdq.audit import Expected, Sites, audit
from dq_toolchain.backends.common.qdq.export import MAIN, function_names
from dq_toolchain.backends.common.qdq.layer_numbers import fail
from dq_toolchain.backends.common.qdq.part_audit import audit_part
from dq_toolchain.backends.coreai.asset import BYTECODE, FILES, load
from dq_toolchain.backends.coreai.ir import Program
from dq_toolchain.backends.coreai.proof.lint import check_known_faults
from dq_toolchain.backends.coreai.proof.reading import CoreAIReader
from dq_toolchain.backends.coreai.proof.storage import check_storage
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.parts.part import Part


def prove(asset: Path, artifact: Artifact, expected: Expected) -> tuple[Program, Sites]:
    """The program of an asset, audited.

    Raises:
        BackendError: its hash does not match, a function is missing or one too many, an integer, a scale, a zero_point
            or a bias differs, a product runs in float, weights are stored twice or hidden, or an operation is of a kind
            that devices are known to compute wrongly.
    """
    wanted = function_names(artifact, expected)
    program = _opened(asset, wanted)
    functions = program.functions
    sites = audit({name: functions[name] for name in wanted}, artifact, expected, CoreAIReader(program))
    names = expected.qparams.names
    columns = {(function, label): column for function, found in sites.items() for label, column in found.items()}

    def site_of(function: str, label: str) -> str | None:
        return names[columns[function, label]] if (function, label) in columns else None

    check_storage(program, (asset / BYTECODE).stat().st_size, site_of)
    check_known_faults(program, sites, expected.qparams)
    return program, sites


def prove_part(asset: Path, part: Part, half: bool) -> Program:
    """The program of a text encoder or a decoder, audited.

    Args:
        half: its arithmetic is fp16.
    Raises:
        BackendError: as of ``prove``, without what is about quantized tensors.
    """
    program = _opened(asset, (MAIN,))
    audit_part(program.functions[MAIN], part, half, CoreAIReader(program))
    check_storage(program, (asset / BYTECODE).stat().st_size, lambda _function, _label: None)
    return program


def _opened(asset: Path, wanted: Collection[str]) -> Program:
    program = load(asset)
    if extra := sorted({path.name for path in asset.rglob("*")} - set(FILES)):
        raise fail(f"{extra[0]} is no file of an .aimodel")
    for name in (*wanted, *program.functions):
        if (name in wanted) != (name in program.functions):
            raise fail(f"function {name} is {'missing' if name in wanted else 'no function of this artifact'}")
    return program
