"""`--check-build`: NVIDIA's own parser and compiler, on the CPU, say whether every promised site is INT8.

TensorRT for RTX is a sibling of the TensorRT on a Jetson and compiles ahead of time without a GPU. It supports claims
about structure, never about speed, and is under NVIDIA's licence: it is asked for, not installed with the extra.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dq_toolchain.backends.tensorrt.deploy.int8_layers import judge
from dq_toolchain.backends.tensorrt.proof.lint import Placement
from dq_toolchain.backends.tensorrt.proof.nvidia_compiler import BINDINGS, LIBRARIES
from dq_toolchain.toolchain.errors import BackendError

COMPUTE_CAPABILITY = "SM86"
"""The nearest to Orin's SM87 that the compiler builds for."""
INSTALL = "pip install --no-deps tensorrt-rtx-cu12-bindings==1.7.1.116 onnxruntime-ep-nv-tensorrt-rtx-cu12==0.5.0"
TIMEOUT_S = 3600


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of one graph. ``int8``: sites that run in INT8, of ``promised``; ``layers``: in all."""

    library: str
    compute_capability: str
    graph: str
    int8: int
    promised: int
    layers: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def is_installed() -> bool:
    """Whether NVIDIA's compiler is there."""
    return all(importlib.util.find_spec(name) is not None for name in (BINDINGS, LIBRARIES))


def require_compiler() -> None:
    """Raise BackendError: the compiler is not installed; the text says how it is had."""
    if not is_installed():
        raise BackendError(
            "--check-build needs NVIDIA's TensorRT for RTX (under NVIDIA's licence), which is not installed; get it "
            f"with: {INSTALL}"
        )


def compile_graph(graph: Path) -> dict[str, Any]:
    """Layers and errors of one graph; see ``nvidia_compiler``. Raises BackendError: the compiler itself fails."""
    command = [
        sys.executable,
        "-m",
        "dq_toolchain.backends.tensorrt.proof.nvidia_compiler",
        str(graph),
        COMPUTE_CAPABILITY,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BackendError(
            f"NVIDIA's compiler was not ready with {graph.name} after {TIMEOUT_S} s; leave --check-build out"
        ) from error
    if done.returncode != 0:
        last = " ".join(done.stderr.strip().splitlines()[-1:])
        raise BackendError(
            f"NVIDIA's compiler died on {graph.name} with code {done.returncode} {last}; nothing was exported; "
            "report it with calibration.json"
        )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def check_build(graph: Path, placements: tuple[Placement, ...]) -> Compiled:
    """Compile a graph and compare it with what the lint promises.

    Raises:
        BackendError: it does not compile, or a site that should be INT8 is not; the text names it.
    """
    result = compile_graph(graph)
    if not result["layers"]:
        text = " ".join(" ".join(result["errors"]).split())
        raise BackendError(
            f"NVIDIA's compiler refuses {graph.name}: {text[:300]}; nothing was exported; report it with "
            "calibration.json"
        )
    promised = [placement.name for placement in placements if placement.int8]
    found = judge(result["layers"], promised)
    missing = found.in_float + found.unseen
    if missing:
        raise BackendError(
            f"NVIDIA's compiler runs {len(missing)} of {len(promised)} sites in float that should be INT8, the "
            f"first is {missing[0]}; nothing was exported; report it with calibration.json"
        )
    return Compiled(
        f"TensorRT for RTX {result['version']}",
        COMPUTE_CAPABILITY,
        graph.name,
        len(found.int8),
        len(promised),
        len(result["layers"]),
    )
