"""Everything that is proven of a saved asset without executing it."""

from __future__ import annotations

from pathlib import Path

from dq_toolchain.backends.common.qdq.audit import Expected, Sites, audit, fail
from dq_toolchain.backends.common.qdq.export import function_names
from dq_toolchain.backends.coreai.asset import BYTECODE, FILES, load
from dq_toolchain.backends.coreai.ir import Program
from dq_toolchain.backends.coreai.proof.lint import check_known_faults
from dq_toolchain.backends.coreai.proof.reading import CoreAIReader
from dq_toolchain.backends.coreai.proof.storage import check_storage
from dq_toolchain.toolchain.formats.artifact import Artifact


def prove(asset: Path, artifact: Artifact, expected: Expected) -> tuple[Program, Sites]:
    """The program of an asset, audited.

    Raises:
        BackendError: its hash does not match, a function is missing or one too many, an integer, a scale, a zero_point
            or a bias differs, a product runs in float, weights are stored twice or hidden, or an operation is of a kind
            that devices are known to compute wrongly.
    """
    program = load(asset)
    if extra := sorted({path.name for path in asset.rglob("*")} - set(FILES)):
        raise fail(f"{extra[0]} is no file of an .aimodel")
    wanted, functions = function_names(artifact, expected), program.functions
    for name in (*wanted, *functions):
        if (name in wanted) != (name in functions):
            raise fail(f"function {name} is {'missing' if name in wanted else 'no function of this artifact'}")
    sites = audit({name: functions[name] for name in wanted}, artifact, expected, CoreAIReader(program))
    names = expected.qparams.names
    columns = {(function, label): column for function, found in sites.items() for label, column in found.items()}

    def site_of(function: str, label: str) -> str | None:
        return names[columns[function, label]] if (function, label) in columns else None

    check_storage(program, (asset / BYTECODE).stat().st_size, site_of)
    check_known_faults(program, sites, expected.qparams)
    return program, sites
