"""A .pte in memory, ready to execute: what the smoke test after lowering, ``run`` and the benchmark share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.executorch.vendor import NOISE, runtime
from dq_toolchain.toolchain.errors import BackendError


class Device:
    """Methods of one program in ExecuTorch's runtime. ``load_ms``: reading the file and loading every method."""

    def __init__(self, program: Path | bytes, methods: Sequence[str]) -> None:
        start = time.perf_counter()
        try:
            with quiet(NOISE, errors=False):
                # The program owns the bytes its methods point into: it must live as long as they do.
                self._program: Any = runtime().load_program(str(program) if isinstance(program, Path) else program)
                self._methods = {name: self._program.load_method(name) for name in dict.fromkeys(methods)}
        except (RuntimeError, KeyError, OSError) as error:
            raise BackendError(
                f"ExecuTorch cannot load the program: {' '.join(str(error).split())[:300]}; "
                "run `dq-toolchain export` again"
            ) from error
        self._executed = False
        self.load_ms = (time.perf_counter() - start) * 1e3

    def __call__(self, method: str, inputs: Sequence[Tensor]) -> Tensor:
        """The first output of one method. Raises BackendError: as ``outputs``."""
        return self.outputs(method, inputs)[0]

    def outputs(self, method: str, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All outputs of one method, copies of their own.

        Raises:
            BackendError: the runtime reports an error.
        """
        try:
            with contextlib.nullcontext() if self._executed else quiet(NOISE):
                out = self._methods[method].execute([tensor.contiguous() for tensor in inputs])
            self._executed = True
        except RuntimeError as error:
            raise BackendError(
                f"ExecuTorch cannot execute method {method!r}: {' '.join(str(error).split())[:300]}; "
                "run `dq-toolchain export` again"
            ) from error
        return tuple(torch.as_tensor(each).clone() for each in out)
