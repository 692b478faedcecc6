"""A function of an asset executed teacher-forced by Apple: a copy of it is given the integers of its sites.

In the copy every quantize operation that has a site is an output, and what follows it is fed by an input.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.backends.common.call import OUTPUT
from dq_toolchain.backends.common.qdq.conformance import Forced, Given
from dq_toolchain.backends.coreai.asset import load, save
from dq_toolchain.backends.coreai.ir import Operation
from dq_toolchain.backends.coreai.patch import expose, keep_only
from dq_toolchain.backends.coreai.runtime.apple import Model

SUFFIX = "_integers"
"""Behind the label of a quantize operation: the names of the input and the output that it becomes."""


def forced(asset: Path, function: str) -> Forced:
    """See ``common.qdq.conformance.compare``; names of operations are the audit's. The copy is made when it is called first.

    Raises:
        BackendError: the asset is damaged, or Core AI does not execute the copy.
    """
    shapes = {op.label: op.out.shape for op in _quantized(asset, function)}
    models: dict[tuple[str, ...], Model] = {}

    def execute(inputs: Mapping[str, Tensor], given: Given) -> tuple[Mapping[str, Tensor], Tensor]:
        wanted = {label: given(label, shape) for label, shape in shapes.items()}
        integers = {label: value.to(torch.int8) for label, value in wanted.items() if value is not None}
        labels = tuple(integers)
        if labels not in models:
            models[labels] = _exposed(asset, function, labels)
        fed = {label + SUFFIX: value for label, value in integers.items()}
        out = models[labels](function, {**inputs, **fed})
        return {label: out[label + SUFFIX] for label in labels}, out[OUTPUT]

    return execute


def _quantized(asset: Path, function: str) -> Sequence[Operation]:
    return [op for op in load(asset).functions[function].operations if op.name == "quantize"]


def _exposed(asset: Path, function: str, labels: Sequence[str]) -> Model:
    """A copy of one function with these operations as outputs and inputs, ready to execute."""
    program = load(asset)
    chosen = [op for op in program.functions[function].operations if op.label in labels]
    keep_only(program, function)
    expose(program, function, chosen, SUFFIX)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / asset.name
        save(program.owner, copy)
        return Model(copy)  # what it executes is in a folder of its own by then
