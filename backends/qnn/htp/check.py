"""``--check-build``: Qualcomm's own compiler says whether every promised product is integer, with the scales of the artifact.

The audit compares the ONNX file with the artifact; here the compiled graph is compared with the ONNX file.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.qnn.htp import dump
from dq_toolchain.backends.qnn.htp.compiler import compile_graphs
from dq_toolchain.backends.qnn.htp.promised import fault, promises
from dq_toolchain.backends.qnn.vendor import WHEEL, compiler_version, require_compiler
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact

FIRST_OPERANDS = ("input", "q", "probs")
"""Operands of sites whose product is a node of the graph: its name is the layer's, or that of the attention operand."""


@dataclass(frozen=True)
class Built:
    """What the compiler made of the graphs of all step groups: ``products`` are in integers, in each of them."""

    library: str
    soc: str
    graphs: tuple[str, ...]
    products: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def products_of(artifact: Artifact) -> tuple[str, ...]:
    """Names of the products that an artifact holds in integers, as nodes of a graph are called."""
    return tuple(
        site.layer if site.operand == "input" else site.name
        for site in artifact.sites
        if site.operand in FIRST_OPERANDS and site.layer not in artifact.float_layers
    )


def check_build(graphs: Sequence[Path], artifact: Artifact, soc: str, say: Say) -> Built:
    """Compile every graph for a chip, nothing left to the CPU, and compare what was made with what the graph asks for.

    Raises:
        BackendError: Qualcomm's library is missing or refuses a graph, or a product is not what the graph asks for; the text
            names the first site.
    """
    require_compiler("--check-build")
    start, wanted = time.perf_counter(), products_of(artifact)
    with tempfile.TemporaryDirectory() as name:
        compile_graphs(graphs, soc, say, dumps=Path(name))
        for path in graphs:
            compare(path, Path(name, path.stem), wanted, soc)
    seconds = time.perf_counter() - start
    return Built(f"{WHEEL} {compiler_version()}", soc, tuple(path.name for path in graphs), len(wanted), seconds)


def compare(graph: Path, folder: Path, wanted: Sequence[str], soc: str) -> None:
    """Compare one graph with what ``dump.provider_options(folder)`` wrote of it.

    Args:
        wanted: names of the products that have to be in integers.
    Raises:
        BackendError: one is not; the text names the first.
    """
    ops, held = dump.read_dump(folder), {promise.name: promise for promise in promises(graph)}
    faults = {name: fault(held[name], ops) if name in held else "the graph has no such product" for name in wanted}
    bad = [f"{name}: {text}" for name, text in faults.items() if text is not None]
    if bad:
        raise BackendError(
            f"{len(bad)} of {len(wanted)} products of {graph.name} are not compiled for {soc} as promised, the first is {bad[0]}; "
            "nothing was exported; report it with calibration.json"
        )
