"""How the types of a graph are given to the TensorRT that a device has: to its Python API, and to trtexec."""

from __future__ import annotations

import sys
from typing import NamedTuple

Version = tuple[int, int]
"""Major and minor, as of TensorRT 10.3."""
OLDEST: Version = (10, 0)
STRONG_FP16: Version = (10, 12)
"""From here on weak types are deprecated, and graphs that hold fp16 and Q/DQ are built with strong ones."""
STRONG_ONLY: Version = (11, 0)
"""From here on every network is strongly typed, and the flags of weak types are gone."""


class Types(NamedTuple):
    """How a builder gets the types of a graph.

    ``strong``: every tensor has the type that the graph says. Otherwise ``flags`` names what the builder may compute in
    beside fp32. ``note``: what the user should know, or "".
    """

    strong: bool
    flags: tuple[str, ...] = ()
    note: str = ""


def types_for(version: Version, precision: str, fp16: bool = True) -> Types:
    """The types that a version of TensorRT takes for the graphs of a bundle.

    Args:
        precision: "fp32" or "fp16", of the graphs between the integer layers.
        fp16: False where the network has values that fp16 does not hold.
    Raises:
        SystemExit: this version cannot build such graphs; the text says what to export instead.
    """
    name = f"TensorRT {version[0]}.{version[1]}"
    if version < OLDEST:
        raise SystemExit(f"{name} does not take these graphs (ONNX opset 19); use JetPack 6.1 or later")
    if precision == "fp16":
        if version < STRONG_FP16:
            raise SystemExit(f"{name} takes fp32 graphs, those of this bundle are fp16; export again with --jetpack 6")
        return Types(strong=True)
    if version < STRONG_ONLY:
        return Types(strong=False, flags=("INT8", "FP16") if fp16 else ("INT8",))
    faster = "; for fp16 export again with --jetpack 7" if fp16 else ""
    return Types(strong=True, note=f"{name} keeps the types of the graph: what is not INT8 runs in fp32{faster}")


def trtexec_flags(number: int, precision: str, fp16: bool = True) -> list[str]:
    """What trtexec is told of the types. ``number``: of its banner "[TensorRT v101303]", 10000 major + 100 minor + patch, which
    before version 10 were 1000 major + 100 minor + patch.

    Raises:
        SystemExit: see ``types_for``.
    """
    version = (number // 10000, number // 100 % 100) if number >= 10000 else (number // 1000, number // 100 % 10)
    types = types_for(version, precision, fp16)
    if types.note:
        print(types.note, file=sys.stderr)
    if types.strong:
        return ["--stronglyTyped"] if version < STRONG_ONLY else []  # later it is always so, and the flag is deprecated
    return [f"--{flag.lower()}" for flag in types.flags]
