"""A network cut in two packages, for phones whose memory does not take it whole.

coremltools' own ``bisect_model`` cuts wherever half of the weights are reached, between quantize and dequantize too, and
runs its default passes on the halves, the wrong ones among them. So only its surgery is used; where to cut and what
runs afterwards is decided here.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.coreml.package import PRODUCTS, SUFFIX, WEIGHTS, load_spec
from dq_toolchain.backends.coreml.vendor import NOISE, coremltools, restore_program, surgery
from dq_toolchain.toolchain.errors import BackendError

WHOLE = (
    "add",
    "silu",
    "concat",
    "cast",
    "reshape",
    "layer_norm",
    "upsample_nearest_neighbor",
    "pad",
    "softmax",
    "transpose",
    "slice_by_index",
    "split",
    "sin",
    "cos",
    "expand_dims",
)
"""Operations whose results may cross a cut: none of them is in the middle of a layer."""
PARTS = ("mul", "quantize")
"""A product may cross as well, unless what follows it is part of the layer: these."""


def cut(package: Path, folder: Path, target: Any, pipeline: Any) -> None:
    """Write two packages that execute one after the other into ``folder``; the whole disappears.

    Args:
        target: deployment target. pipeline: passes that may run on the halves.
    Raises:
        BackendError: there is no place to cut at.
    """
    with quiet(NOISE):
        place = _place(_operations(_program(package)))
        for number, make in enumerate(surgery(), 1):
            program = _program(package)
            _operations(program)
            half = coremltools().convert(
                make(program, place),
                convert_to="mlprogram",
                skip_model_load=True,
                minimum_deployment_target=target,
                compute_precision=coremltools().precision.FLOAT32,
                pass_pipeline=pipeline,
            )
            half.save(str(folder / f"chunk{number}{SUFFIX}"))
    shutil.rmtree(package)


def _program(package: Path) -> Any:
    return restore_program(load_spec(package), str(package / WEIGHTS))


def _operations(program: Any) -> list[Any]:
    """The operations of ``main``, as a list from now on, which the surgery expects."""
    function = program.functions["main"]
    function.operations = list(function.operations)
    found: list[Any] = function.operations
    return found


def _place(operations: Sequence[Any]) -> int:
    """The index of the last operation of the first half: as near to half of the weights as a clean cut allows.

    Raises:
        BackendError: none is clean.
    """
    sizes = np.cumsum([_bytes(op) for op in operations])
    last_use = {
        op.outputs[0]: max((operations.index(user) for user in op.outputs[0].child_ops), default=-1)
        for op in operations
        if not op.op_type.startswith("const")
    }
    clean, crossing = [], set()
    for index, op in enumerate(operations[:-1]):
        crossing |= set() if op.op_type.startswith("const") else set(op.outputs)
        crossing = {var for var in crossing if last_use.get(var, len(operations)) > index}
        if crossing and all(_is_whole(var) for var in crossing):
            clean.append(index)
    clean = [index for index in clean if 0.2 < sizes[index] / sizes[-1] < 0.8]
    if not clean:
        raise BackendError("this network has no place where it can be cut in two; export without --chunks")
    return int(min(clean, key=lambda index: abs(sizes[index] / sizes[-1] - 0.5)))


def _is_whole(var: Any) -> bool:
    kind, users = var.op.op_type, {user.op_type for user in var.child_ops}
    return kind in WHOLE or (kind in PRODUCTS and not users & set(PARTS))


def _bytes(op: Any) -> int:
    value = op.outputs[0].val if op.op_type == "const" else None
    return value.nbytes if isinstance(value, np.ndarray) else 0
