"""The graphs of a bundle executed by ONNX Runtime on the CPU, as they are written: a check of the bundle where there is no GPU."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from bundle import Bundle
from errors import EXPORT_AGAIN, Refused, one_line
from safetensors_file import Array, Floats


class OnnxRuntimeNetwork:
    """One session per method. ``reload``: only the one in use stays in memory.

    Raises:
        Refused: onnxruntime is not installed.
    """

    name = "ONNX Runtime (Python)"
    compute_unit = "CPU, not TensorRT"
    versions: Mapping[str, str] = {}

    def __init__(self, bundle: Bundle, reload: bool = False) -> None:
        try:
            self.library: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise Refused(
                "onnxruntime is not installed; install it with pip, or take --backend tensorrt on the device"
            ) from error
        self.version = str(self.library.__version__)
        self.folder, self.reload, self.load_ms = bundle.folder / bundle.program, reload, 0.0
        self.sessions: dict[str, Any] = {}

    def warm_up(self, method: str, inputs: Mapping[str, Array]) -> None:
        """Load and execute it once."""
        self.execute(method, inputs)

    def execute(self, method: str, inputs: Mapping[str, Array]) -> Floats:
        """The output, (1, C, ...) float32. Raises Refused: it does not load or execute."""
        try:
            session = self._session(method)
            used = {port.name for port in session.get_inputs()}
            return np.asarray(
                session.run(None, {name: value for name, value in inputs.items() if name in used})[0], np.float32
            )
        except Exception as error:  # the library's own kinds have no common base
            raise Refused(f"ONNX Runtime cannot execute {method}: {one_line(error, 300)}; {EXPORT_AGAIN}") from error

    def _session(self, method: str) -> Any:
        if method not in self.sessions:
            if self.reload:
                self.sessions.clear()
            start = time.perf_counter()
            options = self.library.SessionOptions()
            options.log_severity_level = 3
            # Q and DQ as they are written: fused kernels requantize in between, which is another network
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            self.sessions[method] = self.library.InferenceSession(
                str(self.folder / f"{method}.onnx"), options, providers=["CPUExecutionProvider"]
            )
            self.load_ms += (time.perf_counter() - start) * 1e3
        return self.sessions[method]

    def close(self) -> None:
        """Drop the sessions."""
        self.sessions.clear()
