"""What Apple's interpreter of .aimodel programs and our evaluator do in a second, by kind of operation.

    python -m benchmarks.coreai_interpreters

The figures of the first are the constants of ``backends/coreai/evaluator/macs.py``, which choose between the two.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dq_toolchain.backends.coreai.asset import load, save
from dq_toolchain.backends.coreai.evaluator.macs import counted
from dq_toolchain.backends.coreai.evaluator.program import functions
from dq_toolchain.backends.coreai.graph.convert import Callee, to_core_ai
from dq_toolchain.backends.coreai.runtime.apple import Model

WORK: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "3x3 convolution": (
        lambda x, w: F.conv2d(x, w, padding=1),
        (torch.randn(1, 64, 32, 32), torch.randn(64, 64, 3, 3)),
    ),
    "queries by keys": (lambda x, y: x @ y, (torch.randn(1, 8, 256, 40), torch.randn(1, 8, 40, 256))),
    "softmax": (lambda x: x.softmax(-1), (torch.randn(1, 8, 256, 256),)),
}


class Of(nn.Module):
    """A function of its inputs."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def callee(name: str, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callee:
    names = [f"x{i}" for i in range(len(inputs))]
    return Callee(module=Of(function), arguments=inputs, function=name, inputs=names, outputs=("y",))


def _seconds(run: Callable[[], Any]) -> float:
    run()
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


if __name__ == "__main__":
    callees = [
        callee(f"{name}, {dtype}", function, [x.to(getattr(torch, dtype)) for x in inputs])
        for name, (function, inputs) in WORK.items()
        for dtype in ("float32", "float16")
    ]
    with tempfile.TemporaryDirectory() as folder:
        asset = Path(folder) / "model.aimodel"
        save(to_core_ai(*callees), asset)
        program, apple = load(asset), Model(asset)
        ours = functions(program)
        print(f"{'':28}{'Apple, G/s':>12}{'ours, G/s':>12}")
        for one in callees:
            name, given = one.function, dict(zip(one.inputs, one.arguments, strict=True))
            work = counted(program, program.functions[name]).total() / 1e9
            rates = [work / _seconds(run) for run in (lambda: apple(name, given), lambda: ours[name](given))]  # noqa: B023
            print(f"{name:28}{rates[0]:12.3f}{rates[1]:12.3f}")
