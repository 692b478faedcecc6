"""What an export takes of this machine, said before the work: memory while a program is written, and while it is executed once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.common.execution_memory import call_memory
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.models.activations import activations_of
from dq_toolchain.toolchain.parts.part import Part, example

SMALL = 2**24
"""Parameters of a network whose activations are not worth a look."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an export was measured to take on one target: resident memory, the artifact's mapped pages included.

    Attributes:
        library_mb: of Python with the vendor's libraries, before any network is lowered.
        written: bytes per parameter until the file is audited.
        executed: bytes per parameter while it is executed, activations aside.
        convolution: more of them for a weight of a convolution, which kernels pack.
        layers: how many float32 copies of the largest layer's weights the execution has at once, where it unpacks them in turn.
        scores: how many float32 tensors of an attention's scores the execution has at once.
        unfolded: (parameters, bytes): ``executed`` from so many parameters on; None: always the same.
        seconds_per_layer: until the file is written; executing it takes time with the size of the network's activations.
    """

    library_mb: float
    written: float
    executed: float
    seconds_per_layer: float
    convolution: float = 0.0
    layers: int = 0
    scores: int = 2
    unfolded: tuple[int, float] | None = None

    def of(self, artifact: Artifact, call: Call) -> str:
        """In words."""
        seconds = 5 + self.seconds_per_layer * len(artifact.layers)
        return (
            f"about {self.memory(artifact, call) / 2**20:.0f} MB of memory, and {seconds:.0f} s before it is executed"
        )

    def memory(self, artifact: Artifact, call: Call, execute: bool = True) -> int:
        """Bytes, at the peak. ``execute``: the program is executed too, as every export does."""
        weights = [layer.weight_q for layer in artifact.layers.values()]
        numbers = sum(tensor.numel() for tensor in (*weights, *artifact.float_parameters.values()))
        held = self.written * numbers
        if execute:
            convolved = sum(weight.numel() for weight in weights if weight.dim() > 2)
            made = 0
            if numbers > SMALL:
                memory = call_memory(artifact, call)
                made = memory.activations + self.scores * memory.scores
            made += 4 * self.layers * max((weight.numel() for weight in weights), default=0)
            held = max(held, self._executed(numbers, convolved) + made)
        return int(self.library_mb * 2**20 + held)

    def of_part(self, part: Part) -> str:
        """In words. Activations count: a decoder's are larger than its weights."""
        numbers = part.integers + sum(tensor.numel() for tensor in part.float_parameters.values())
        module = part.architecture()
        convolved = sum(each.weight.numel() for each in module.modules() if isinstance(each, nn.Conv2d))
        made = activations_of(module, [example(port) for port in part.inputs]).on_cpu
        held = max(self.written * numbers, self._executed(numbers, convolved))
        return f"about {self.library_mb + (held + made) / 2**20:.0f} MB of memory"

    def _executed(self, numbers: int, convolved: int) -> float:
        if self.unfolded is not None and numbers >= self.unfolded[0]:
            return self.unfolded[1] * numbers
        return self.executed * numbers + self.convolution * convolved
