"""``run --emulator``: a bundle's graphs, compiled for a chip and executed by Qualcomm's library in the chip's place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.backends.base import Execute, Runtime, Say
from dq_toolchain.backends.common.onnx.session import executor
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.qnn.chips import EMULATED
from dq_toolchain.backends.qnn.graph.biases import graph_to_compile
from dq_toolchain.backends.qnn.htp.session import Session, open_session
from dq_toolchain.backends.qnn.vendor import WHEEL, compiler_version, require_compiler
from dq_toolchain.toolchain.formats.bundle import Bundle


class Emulator:
    """One compiled graph at a time: step groups come in order, and each takes memory.

    Args:
        folder: of the graphs. soc: the chip.
    """

    def __init__(self, folder: Path, soc: str, say: Say = lambda _line: None) -> None:
        self.folder, self.soc, self.say = folder, soc, say
        self.current = ""
        self.session: Session | None = None

    def __call__(self, method: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """The network output of one graph. Raises BackendError: it does not compile or execute."""
        session = self.open(method)
        names = {port.name for port in session.get_inputs()}
        feeds = {name: tensor.numpy() for name, tensor in inputs.items() if name in names}
        return torch.from_numpy(session.run(None, feeds)[0])

    def open(self, method: str) -> Session:
        """The compiled graph; the one before is gone. Raises BackendError: it does not compile."""
        if self.session is None or method != self.current:
            if self.session is not None:
                self.session.close()  # its memory first
            self.session = open_session(graph_to_compile(self.folder, method), self.soc, self.say)
            self.current = method
        return self.session


def open_bundle(bundle: Bundle, folder: Path, soc: str = EMULATED) -> tuple[Execute, Runtime]:
    """What executes a bundle on the emulator; see ``base.OpenEmulator``."""
    require_compiler("--emulator")
    start = time.perf_counter()
    execute = executor(Emulator(folder / bundle.program, soc), Schedule.of(bundle, folder))
    runtime = Runtime(
        f"Qualcomm HTP by {WHEEL}",
        str(compiler_version()),
        f"HTP, emulated {soc}",
        (time.perf_counter() - start) * 1e3,
        emulated=True,
        device=f"emulated {soc}",
    )
    return execute, runtime
