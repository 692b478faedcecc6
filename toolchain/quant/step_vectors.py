"""A network that takes what depends on the timestep alone from a table with one row per step: no time embedding is computed.

The function is the same at the steps of the table. What leads from the timestep to the cut (``time_path``) is gone from the
network: it has no integers, and no device computes a sinusoid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.time_path import TIMESTEP, Vector, find_time_path

ROWS = "step_rows"
"""Name of the module in a rewritten network that holds the table."""
TOLERANCE = 1e-4
"""Of the largest output, between a network and the rewritten one; sums of float32 in another order are within 1e-6."""


@dataclass(frozen=True, kw_only=True)
class StepVectors:
    """Attributes:
    vectors: the columns, one after the other, each flat.
    unused: modules that only led to them.
    timesteps: (M,) float32, of the network calls; behind them may follow those of other samplers. rows: (M, V) float32, what the
        vectors are there.
    """

    vectors: tuple[Vector, ...]
    unused: tuple[Vector, ...]
    timesteps: Tensor
    rows: Tensor

    @property
    def width(self) -> int:
        """V, the numbers of a row."""
        return sum(vector.size for vector in self.vectors)

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose layers the rewritten network does not have."""
        return tuple(vector.name for vector in (*self.vectors, *self.unused) if vector.name != TIMESTEP)

    def replaces(self, name: str) -> bool:
        """Whether a module or parameter of the network is gone from the rewritten one."""
        return any(name == module or name.startswith(f"{module}.") for module in self.modules)

    def columns(self) -> Iterator[tuple[str, Tensor]]:
        """What each vector is in all rows: its name, and (M, size) float32."""
        for name, place in _places(self.vectors):
            yield name, self.rows[:, place]

    def at(self, timesteps: Sequence[float]) -> StepVectors:
        """The table of these network calls, a row each. Raises ModelError: a timestep is not in this one."""
        wanted = torch.tensor(timesteps, dtype=torch.float32)
        return replace(self, timesteps=wanted, rows=self.rows[self._places_of(wanted)])

    def _places_of(self, wanted: Tensor) -> Tensor:
        same = self.timesteps == wanted.reshape(-1, 1)
        found = same.any(1)
        if not bool(found.all()):
            raise ModelError(_unknown(float(wanted[~found][0]), len(self.timesteps)))
        return same.to(torch.uint8).argmax(1)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it."""
        return {"timesteps": self.timesteps, "rows": self.rows}

    def to_json(self) -> dict[str, Any]:
        """Names and shapes; the numbers are for a file of tensors."""
        return {
            key: [{"name": vector.name, "shape": list(vector.shape)} for vector in vectors]
            for key, vectors in (("vectors", self.vectors), ("unused", self.unused))
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> StepVectors:
        """``tensors``: ``timesteps`` and ``rows``."""
        vectors, unused = (
            tuple(Vector(each["name"], tuple(each["shape"])) for each in data[key]) for key in ("vectors", "unused")
        )
        return cls(vectors=vectors, unused=unused, timesteps=tensors["timesteps"], rows=tensors["rows"])


class Current:
    """The rows of the pass at work, (B, V), which all vectors of one network read."""

    rows: Tensor | None = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> Current:
        """Of a copy of the network, which is in no pass: one on shapes could not copy a real tensor."""
        return Current()

    def of(self) -> Tensor:
        if self.rows is None:
            raise RuntimeError("a step vector was read before the network was called with a timestep")
        return self.rows


class StepRows(nn.Module):
    """The table, and what hands its rows to the network's vectors before every pass."""

    timesteps: Tensor
    rows: Tensor

    def __init__(self, given: StepVectors, current: Current) -> None:
        super().__init__()
        self.register_buffer("timesteps", given.timesteps.clone(), persistent=False)
        self.register_buffer("rows", given.rows.clone(), persistent=False)
        self.current = current
        places = dict(_places(given.vectors))
        self.place_of_timestep = places[TIMESTEP].start if TIMESTEP in places else None

    def take(self, given: Tensor) -> None:
        """Set the rows of the next pass.

        Args:
            given: (B,) timesteps of the table, or (B, V) rows.
        Raises:
            ModelError: a timestep is not in the table. On a GPU, where looking takes time, its rows are NaN instead. Of shapes
                alone, which have no numbers, nothing is asked.
        """
        self.current.rows = given if given.dim() == 2 else self._rows_of(given)

    def _rows_of(self, timesteps: Tensor) -> Tensor:
        same = self.timesteps == timesteps.to(torch.float32).reshape(-1, 1)
        found = same.any(1)
        if found.device.type == "cpu" and not isinstance(found, FakeTensor) and not bool(found.all()):
            raise ModelError(_unknown(float(timesteps[~found][0]), len(self.timesteps)))
        rows = self.rows[same.to(torch.uint8).argmax(1)]
        return torch.where(found[:, None], rows, torch.nan)

    def before(
        self, _network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Forward hook of the network: it is called with timesteps or rows, and gets a timestep in any case."""
        by_name = TIMESTEP in kwargs
        self.take(kwargs[TIMESTEP] if by_name else args[1])
        rows = self.current.of()
        column = self.place_of_timestep
        timestep = torch.zeros_like(rows[:, 0]) if column is None else rows[:, column].clone()
        if by_name:
            return args, {**kwargs, TIMESTEP: timestep}
        return (args[0], timestep, *args[2:]), kwargs


class StepVector(nn.Module):
    """Columns of the row of the pass at work, in the place of a module that computed them.

    ``dtype``: of what it gives. Rows are float32, and so is the timestep among them, in a network of any dtype.
    """

    def __init__(self, columns: slice, shape: tuple[int, ...], current: Current) -> None:
        super().__init__()
        self.columns, self.shape, self.current, self.dtype = columns, shape, current, torch.float32

    def forward(self, *_unused: Any, **_also_unused: Any) -> Tensor:
        """(B, *shape), a tensor of its own."""
        rows = self.current.of()
        vector = rows[:, self.columns].reshape(-1, *self.shape).clone()
        return vector if vector.dtype == self.dtype else vector.to(self.dtype)


class Unused(nn.Module):
    """Zeros in the place of a module whose output only led to vectors."""

    def __init__(self, shape: tuple[int, ...], current: Current) -> None:
        super().__init__()
        self.shape, self.current = shape, current

    def forward(self, *_unused: Any, **_also_unused: Any) -> Tensor:
        """(B, *shape) float32."""
        rows = self.current.of()
        return rows.new_zeros((rows.shape[0], *self.shape))


def use_step_vectors(network: nn.Module, given: StepVectors) -> None:
    """Rewrite the network in place. Call it as before, at timesteps of the table; or with rows (B, V) in the place of timesteps."""
    current = Current()
    for name, columns in _places(given.vectors):
        shape = next(vector.shape for vector in given.vectors if vector.name == name)
        if name != TIMESTEP:
            network.set_submodule(name, StepVector(columns, shape, current))
    for vector in given.unused:
        network.set_submodule(vector.name, Unused(vector.shape, current))
    rows = StepRows(given, current)
    network.add_module(ROWS, rows)
    network.takes_step_vectors = True  # type: ignore[assignment]  # for those who call it (``models.architectures``)
    network.register_forward_pre_hook(rows.before, with_kwargs=True)


def take_vectors_as(network: nn.Module, dtype: torch.dtype) -> None:
    """What a rewritten network computes in from now on; its rows stay float32. Nothing, if the network is not rewritten."""
    for module in network.modules():
        if isinstance(module, StepVector):
            module.dtype = dtype


def find_step_vectors(
    network: nn.Module, timesteps: Sequence[float], run: Callable[[nn.Module], Tensor], unit: int = 1
) -> tuple[StepVectors, Mapping[str, Tensor]]:
    """Rewrite the network in place for a schedule.

    Args:
        timesteps: of the network calls, as the sampler has them. run: calls the network once on a representative input and returns
            its output. unit: of these timesteps in one of the network's time.
    Returns:
        The table, and the parameters that the network no longer has.
    Raises:
        ModelError: the network has no such table, or is another function with it.
    """
    path = find_time_path(network, run)
    rows = path.rows([timestep / unit for timestep in timesteps])
    given = StepVectors(
        vectors=path.vectors, unused=path.unused, timesteps=torch.tensor(timesteps, dtype=torch.float32), rows=rows
    )
    gone = parameters_of(network, given)
    judged = dict.fromkeys((timesteps[0], timesteps[-1]))
    before = [_at(network, timestep / unit, run) for timestep in judged]
    use_step_vectors(network, given)
    for timestep, want in zip(judged, before, strict=True):
        difference = float((_at(network, timestep, run) - want).abs().max())
        if not difference <= TOLERANCE * float(want.abs().max()):
            raise ModelError(
                f"step_vectors: with a table of what depends on time the network's output differs by {difference:.3g} at timestep "
                f"{timestep:g}: it computes with its timestep in a way that is not followed; leave step_vectors out"
            )
    return given, gone


@torch.no_grad()
def _at(network: nn.Module, timestep: float, run: Callable[[nn.Module], Tensor]) -> Tensor:
    """What ``run`` gives if the network is called at another timestep than ``run`` says."""

    def instead(_network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if TIMESTEP in kwargs:
            return args, {**kwargs, TIMESTEP: torch.full_like(kwargs[TIMESTEP], timestep)}
        return (args[0], torch.full_like(args[1], timestep), *args[2:]), kwargs

    with hooks([network.register_forward_pre_hook(instead, with_kwargs=True, prepend=True)]):
        return run(network)


def take_timesteps(network: nn.Module, timesteps: Tensor) -> None:
    """(B,): of the samples that modules inside are called with next by themselves. Nothing, if the network is not rewritten."""
    rows = network._modules.get(ROWS)
    if isinstance(rows, StepRows):
        rows.take(timesteps)


def parameters_of(network: nn.Module, given: StepVectors) -> Mapping[str, Tensor]:
    """Of a network that is not rewritten yet: parameters and buffers that the rewritten one does not have, from which rows for
    other timesteps follow."""
    return {name: tensor for name, tensor in network.state_dict().items() if given.replaces(name)}


def _unknown(timestep: float, count: int) -> str:
    return (
        f"timestep {timestep:g} is not among the {count} of the step vectors; calibrate with the sampler that is to be run "
        "(--steps, --more-steps), or leave step_vectors out"
    )


def _places(vectors: Sequence[Vector]) -> Iterator[tuple[str, slice]]:
    begin = 0
    for vector in vectors:
        yield vector.name, slice(begin, begin + vector.size)
        begin += vector.size
