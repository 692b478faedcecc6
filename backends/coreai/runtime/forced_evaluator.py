"""A function of an .aimodel executed teacher-forced: by our evaluator, which can be given integers on its way."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dq_toolchain.backends.common.call import OUTPUT
from dq_toolchain.backends.common.qdq.conformance import Forced, Given
from dq_toolchain.backends.coreai.evaluator.program import QUANTIZE, Function
from dq_toolchain.backends.coreai.ir import Operation


def forced(function: Function) -> Forced:
    """See ``common.qdq.conformance.compare``."""

    def execute(inputs: Mapping[str, Tensor], given: Given) -> tuple[Mapping[str, Tensor], Tensor]:
        computed: dict[str, Tensor] = {}

        def watch(op: Operation, value: Tensor) -> Tensor:
            if op.name != QUANTIZE:
                return value
            computed[op.label] = value
            wanted = given(op.label, value.shape)
            return value if wanted is None else wanted

        return computed, function(inputs, watch)[OUTPUT]

    return execute
