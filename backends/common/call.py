"""One call of the network as every target's program sees it: named tensors in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Port
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.models.architectures import call_network

DTYPES = {torch.float32: "float32", torch.int64: "int64"}
OUTPUT = "output"


@dataclass(frozen=True)
class Call:
    """Inputs of one call, batch 1.

    Attributes:
        sample: (1, C, H, W) float32. timestep: (1,) float32, or the step's row (1, V) of a network with step vectors.
        conditioning: keyword tensors of the network, first axis 1, in the order of the program's inputs.
        ranges: (1, ...) float32 where the step group's ranges are an input, else None.
    """

    sample: Tensor
    timestep: Tensor
    conditioning: Mapping[str, Tensor]
    ranges: Tensor | None = None

    @property
    def named(self) -> dict[str, Tensor]:
        """Inputs by name, in the order of the program's."""
        ranges = {} if self.ranges is None else {"ranges": self.ranges}
        time = "timestep" if self.timestep.dim() == 1 else "step_vectors"
        return {"sample": self.sample, time: self.timestep, **self.conditioning, **ranges}

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """The same without names."""
        return tuple(self.named.values())

    def with_ranges(self, ranges: Tensor | None) -> Call:
        return replace(self, ranges=ranges)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Names, dtypes and shapes of ``arguments``. Raises BackendError: a dtype that no program takes."""
        return tuple(Port(name, _dtype(name, tensor), tuple(tensor.shape)) for name, tensor in self.named.items())

    @property
    def output(self) -> Port:
        """The network output: shape of the sample."""
        return Port(OUTPUT, "float32", tuple(self.sample.shape))


class PositionalNetwork(nn.Module):
    """A network as a function of positional tensors, in the order of ``Call.arguments``.

    Args:
        keywords: names of the conditioning.
        take_ranges: gets the last tensor before every call, where the program has the input ``ranges``.
    """

    def __init__(
        self, unet: nn.Module, keywords: Sequence[str], take_ranges: Callable[[Tensor], None] | None = None
    ) -> None:
        super().__init__()
        self.unet, self.keywords, self.take_ranges = unet, tuple(keywords), take_ranges

    def forward(self, sample: Tensor, timestep: Tensor, *rest: Tensor) -> Tensor:
        if self.take_ranges is not None:
            self.take_ranges(rest[-1])
            rest = rest[:-1]
        return call_network(self.unet, sample, timestep, dict(zip(self.keywords, rest, strict=True)))


def _dtype(name: str, tensor: Tensor) -> str:
    if tensor.dtype not in DTYPES:
        raise BackendError(
            f"conditioning {name!r} has dtype {tensor.dtype}, programs take float32 and int64; calibrate "
            "again with that dtype"
        )
    return DTYPES[tensor.dtype]


def example_call(artifact: Artifact, reference: Reference, ranges: Tensor | None = None) -> Call:
    """Inputs of the first seed at the first step; their shapes become the program's."""
    rows = artifact.step_rows
    return Call(
        reference.start[:1].to(torch.float32),
        torch.tensor([artifact.table.timesteps[0]], dtype=torch.float32) if rows is None else rows[:1],
        dict(reference.conditioning.select(slice(1)).cond),
        ranges,
    )
