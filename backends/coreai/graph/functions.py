"""Step groups as functions of one program: the converted function is copied, and each copy gets its group's scales.

Copies use the same constants for weights, so these are in the file once whatever the number of step groups.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from dq_toolchain.backends.common.qdq.export import function_name
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.common.qdq.tags import site_of_tag
from dq_toolchain.backends.coreai.ir import Program, read
from dq_toolchain.backends.coreai.patch import QDQ, multiply_function
from dq_toolchain.toolchain.errors import BackendError


def split_into_functions(owner: Any, tagged: str, qparams: QParams) -> None:
    """Replace the function ``tagged`` of the vendor's program by one per step group.

    Raises:
        BackendError: the program has no place for the numbers: it quantizes somewhere else than at the tensors of
            ``qparams``, or with a scale that is no constant.
    """
    program = read(owner)
    columns = columns_of(program, tagged, len(qparams.names))
    groups = {function_name(g): functools.partial(qparams.at, g) for g in range(len(qparams.scale))}
    multiply_function(program, tagged, columns, groups)


def columns_of(program: Program, function: str, columns: int) -> Mapping[str, int]:
    """Label of a quantize or dequantize -> column that its tag stands for. Raises BackendError: see above."""
    found = {}
    for op in program.functions[function].operations:
        if op.name not in QDQ:
            continue
        scale = program.constant(op.operands[1])
        if scale is None:
            raise BackendError(f"the scale of {op.label} is no constant; report it with calibration.json")
        site = site_of_tag(float(scale))
        if not 0 <= site < columns:
            raise BackendError(
                f"the converted program quantizes at {op.label}, which is no site; report it with calibration.json"
            )
        found[op.label] = site
    return found
