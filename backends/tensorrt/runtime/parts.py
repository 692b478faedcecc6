"""A text encoder or a decoder of a bundle, ready to execute: its engine where engines were built, ONNX Runtime elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.backends.base import RunPart
from dq_toolchain.backends.common.onnx.parts import open_part as open_graph
from dq_toolchain.backends.tensorrt.deploy.build_engines import ENGINES
from dq_toolchain.backends.tensorrt.runtime.engines import Engines
from dq_toolchain.backends.tensorrt.vendor import tensorrt
from dq_toolchain.toolchain.errors import BackendError


def open_part(program: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None = None) -> RunPart:
    """See ``base.OpenPart``. Where a bundle has engines, all of them are needed: none falls back to the CPU silently."""
    library, bundle = tensorrt(), program.parents[1]
    if library is None or not torch.cuda.is_available() or not (bundle / ENGINES).is_dir():
        return open_graph(program, inputs, outputs, threads)
    if threads is not None:
        raise BackendError("threads cannot be set for TensorRT, it runs on the GPU; leave --threads out")
    return part_engine(Engines(library, bundle, (program.name,)), program.name, inputs, outputs)


def part_engine(engines: Engines, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> RunPart:
    """What executes the engine of that name."""

    def execute(given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        shapes = {each: engines.shape_of(name, each) for each in outputs}
        return engines.execute(name, {each: given[each] for each in inputs}, shapes)

    return execute
