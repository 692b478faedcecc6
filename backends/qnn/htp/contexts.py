"""One context for a chip: what its NPU loads, made of all step groups' graphs, with their weights in it once.

Qualcomm's compiler keeps the weights of several graphs once if their sessions share a context: of graphs whose integers are equal
and whose activation scales differ, every further one costs its code alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.qnn.htp import dump
from dq_toolchain.backends.qnn.htp.session import open_session
from dq_toolchain.backends.qnn.vendor import onnx
from dq_toolchain.toolchain.disk.staging import staged
from dq_toolchain.toolchain.errors import BackendError

BINARY = "steps.bin"
SUFFIX = "_ctx.onnx"
NODE, FILE, VERSION = "EPContext", "ep_cache_context", "ep_sdk_version"


@dataclass(frozen=True)
class Context:
    """What was written for a chip.

    Attributes:
        graphs: names of the step groups' files. bytes: of all files together. weight_bytes: of one graph's integers.
        seconds: that compiling took. qairt: version of Qualcomm's libraries; a phone needs this one or a later one.
    """

    soc: str
    graphs: tuple[str, ...]
    bytes: int
    weight_bytes: int
    seconds: float
    qairt: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write_contexts(graphs: Sequence[Path], out: Path, soc: str, say: Say, *, dumps: Path | None = None) -> Context:
    """Compile the step groups' graphs for a chip into the folder ``out``: ``steps.bin`` and one ``NAME_ctx.onnx`` per graph.

    The folder appears whole or not at all.

    Args:
        dumps: folder that takes what ``check.compare`` reads, a folder per graph; None writes none.
    Raises:
        BackendError: Qualcomm's library is missing, refuses a graph, or did not keep the weights once.
        ToolchainError: ``out`` cannot be written.
    """
    start = time.perf_counter()
    with staged(out, BINARY) as folder:
        binary = _compile(graphs, folder, soc, say, dumps)
        qairt = {_use(folder / f"{path.stem}{SUFFIX}", binary) for path in graphs}
        (folder / binary).rename(folder / BINARY)
        size = sum(path.stat().st_size for path in folder.iterdir())
    return Context(
        soc,
        tuple(f"{path.stem}{SUFFIX}" for path in graphs),
        size,
        weight_bytes(graphs[0]),
        time.perf_counter() - start,
        ", ".join(sorted(qairt)),
    )


def _compile(graphs: Sequence[Path], folder: Path, soc: str, say: Say, dumps: Path | None) -> str:
    """Name of the one binary that the provider wrote."""
    sessions = []
    for path in graphs:
        entries = {
            "ep.context_enable": "1",
            "ep.context_embed_mode": "0",
            "ep.context_file_path": str(folder / f"{path.stem}{SUFFIX}"),
            "ep.share_ep_contexts": "1",
        }
        if path is graphs[-1]:
            entries["ep.stop_share_ep_contexts"] = "1"
        options = {}
        if dumps is not None:
            (dumps / path.stem).mkdir(parents=True)
            options = dump.provider_options(dumps / path.stem)
        sessions.append(open_session(path, soc, say, entries=entries, options=options))
    del sessions  # not before the last one, which writes what all of them share
    found = sorted(path.name for path in folder.iterdir() if path.suffix == ".bin")
    if len(found) != 1:
        raise BackendError(
            f"Qualcomm's compiler wrote {len(found)} contexts for {len(graphs)} graphs (expected 1), so weights are not shared; "
            "nothing was exported; report it with calibration.json"
        )
    return found[0]


def _use(path: Path, binary: str) -> str:
    """Make a context's graph name the file that it lies beside; returns the version of the libraries that made it."""
    model = onnx().load(path)
    version = ""
    for node in model.graph.node:
        if node.op_type != NODE:
            raise BackendError(
                f"{path.name} holds a {node.op_type} beside the compiled graph, so not all of it is on the NPU; nothing was "
                "exported; report it with calibration.json"
            )
        for attribute in node.attribute:
            if attribute.name == FILE:
                assert attribute.s == binary.encode()
                attribute.s = BINARY.encode()
            if attribute.name == VERSION:
                version = attribute.s.decode()
    onnx().save(model, path)
    return version


def weight_bytes(graph: Path) -> int:
    """Bytes of a graph's integer weights, two of 4 bits in one."""
    kinds = onnx().TensorProto
    sizes = {kinds.INT4: 0.5, kinds.UINT4: 0.5, kinds.INT8: 1.0, kinds.UINT8: 1.0}
    total = 0.0
    for tensor in onnx().load(graph, load_external_data=False).graph.initializer:
        elements = 1
        for size in tensor.dims:
            elements *= size
        total += sizes.get(tensor.data_type, 0.0) * elements
    return int(total)
