"""What writing and executing a graph costs, for every target that takes ONNX."""

from __future__ import annotations

from dq_toolchain.backends.common.cost import Cost
from dq_toolchain.backends.common.onnx.session import UNFOLDED_BYTES

COST = Cost(
    library_mb=750,
    written=2.02,
    executed=5.0,
    convolution=3.5,
    unfolded=(UNFOLDED_BYTES // 4, 2.1),
    seconds_per_layer=0.15,
)
"""Measured by `python -m benchmarks.sd15_chain` and the size benchmarks with `--execute`."""
