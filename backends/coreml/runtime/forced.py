"""A function of a package executed teacher-forced: by the interpreter, which can be given integers on its way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dq_toolchain.backends.common.call import OUTPUT
from dq_toolchain.backends.common.qdq.conformance import Forced, Given
from dq_toolchain.backends.coreml.interpreter.program import Program


def forced(program: Program) -> Forced:
    """See ``common.qdq.conformance.compare``."""

    def execute(inputs: Mapping[str, Tensor], given: Given) -> tuple[Mapping[str, Tensor], Tensor]:
        computed: dict[str, Tensor] = {}

        def watch(op: Any, value: Tensor) -> Tensor:
            if op.op_type != "quantize":
                return value
            computed[op.name] = value
            wanted = given(op.name, value.shape)
            return value if wanted is None else wanted.to(value.dtype)

        return computed, program(inputs, watch)[OUTPUT]

    return execute
