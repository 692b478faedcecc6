"""A network that answers from golden vectors and checks what it is asked: for tests of the sampler on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from errors import Refused
from safetensors_file import Array, Floats, read_tensors

TOLERANCE = 1e-6


class ReplayNetwork:
    """Execution e must be given ``inputs[e]`` and ``timesteps[e]`` or ``step_vectors[e]`` of the file; it answers ``outputs[e]``.

    Raises:
        Refused: the file is damaged.
    """

    name, version, compute_unit, load_ms = "golden vectors", "1", "none", 0.0
    versions: Mapping[str, str] = {}

    def __init__(self, path: Path) -> None:
        tensors = read_tensors(path)
        times = "step_vectors" if "step_vectors" in tensors else "timesteps"
        if not {"inputs", "outputs", times} <= set(tensors):
            raise Refused(
                f"{path} must hold inputs, outputs and timesteps or step_vectors, got {', '.join(tensors) or 'nothing'}; make it "
                "anew"
            )
        self.inputs, self.outputs, self.times = tensors["inputs"], tensors["outputs"], tensors[times]
        self.input = "timestep" if times == "timesteps" else times
        if not len(self.inputs) == len(self.outputs) == len(self.times):
            raise Refused(f"{path}: inputs, outputs and {times} must be as many; make it anew")
        self.count = 0

    def warm_up(self, method: str, inputs: Mapping[str, Array]) -> None:
        """The vectors begin after it."""

    def execute(self, method: str, inputs: Mapping[str, Array]) -> Floats:
        """The stored answer, (1, C, ...). Raises Refused: the inputs are not the stored ones, or there are no more."""
        e = self.count
        if e >= len(self.outputs):
            raise Refused(f"the golden vectors hold {e} executions, the sampler asks for more; correct the sampler")
        for what, want in (("sample", self.inputs[e : e + 1]), (self.input, self.times[e : e + 1])):
            got = inputs.get(what)
            if (
                got is None
                or got.shape != want.shape
                or not np.allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
            ):
                raise Refused(
                    f"execution {e} was given another {what} than the golden vectors hold; correct the sampler"
                )
        self.count += 1
        return np.array(self.outputs[e : e + 1], np.float32)

    def close(self) -> None:
        """Nothing is held."""
