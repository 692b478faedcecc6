"""Run-time scales: an operand of quantize and dequantize, taken from the input ``ranges`` as it is."""

from __future__ import annotations

from torch import Tensor

from dq_toolchain.backends.common.qdq.entries import RangesInput
from dq_toolchain.backends.common.qdq.operators import Operators


class OperandEntry:
    """Q/DQ with a column of the input as its scale."""

    def __init__(self, operators: Operators, ranges: RangesInput) -> None:
        self.operators, self.ranges = operators, ranges

    def __call__(self, x: Tensor, site: int) -> tuple[Tensor, Tensor | None]:
        return self.operators.quantized(x, self.ranges.row[0, site]), None
