"""ONNX Runtime in the place of a device's runtime: the same graphs, executed on the CPU as they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.base import Execute
from dq_toolchain.backends.common.onnx.libraries import onnxruntime
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.toolchain.errors import BackendError

KEEP_BYTES = 2**31
"""Sessions of all step groups stay open while their float weights together take less than this."""
UNFOLDED_BYTES = 2**33
"""From so many bytes of float weights on they are unpacked call by call, a layer at a time: else the runtime unpacks all of them
when it opens a graph, and packs those of convolutions once more for its kernels."""


Program = Callable[[str, Mapping[str, Tensor]], Tensor]
"""(method, inputs by name) -> network output."""


def executor(program: Program, schedule: Schedule) -> Execute:
    """One execution of step k's graph with its step group's ranges, or with its step vectors."""

    def execute(k: int, sample: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return program(schedule.method_of_step[k], schedule.call(k, sample, timestep, conditioning).named)

    return execute


class Sessions:
    """One session per graph, opened when its step group comes; few large ones are not kept.

    Args:
        folder: of the graphs. threads: None is the runtime's own choice.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.folder, self.threads = folder, threads
        self.open: dict[str, Any] = {}
        weights = 4 * sum(path.stat().st_size for path in folder.iterdir())
        self.keep, self.fold = max(1, KEEP_BYTES // max(1, weights)), weights < UNFOLDED_BYTES

    def __call__(self, method: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """The network output of one graph. Raises BackendError: it does not load or execute."""
        try:
            session = self._session(method)
            names = {port.name for port in session.get_inputs()}
            feeds = {name: tensor.numpy() for name, tensor in inputs.items() if name in names}
            return torch.from_numpy(session.run(None, feeds)[0])
        except Exception as error:  # the runtime's own kinds have no common base
            text = " ".join(str(error).split())
            raise BackendError(
                f"ONNX Runtime cannot execute {method}: {text[:300]}; run `dq-toolchain export` again"
            ) from error

    def _session(self, method: str) -> Any:
        if method not in self.open:
            while len(self.open) >= self.keep:
                del self.open[next(iter(self.open))]
            self.open[method] = open_session(self.folder / f"{method}.onnx", self.threads, self.fold)
        return self.open[method]


def open_session(path: Path, threads: int | None = None, fold: bool = True) -> Any:
    """A session that executes Q and DQ as they are written: fused kernels would requantize between them.

    Args:
        fold: constants are computed once, weights behind a DQ among them; False: in every call.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    left_out = [] if fold else ["ConstantFolding"]
    options.enable_cpu_mem_arena = options.enable_mem_pattern = fold  # both keep what was the most
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out)
