"""Finds what a network computes from the timestep alone, by running it once: where that enters the rest, and how to redo it.

Every tensor is followed: computed from the timestep and from weights alone, or from anything else too (latents, prompts, labels).
A module that gives one tensor of the first kind, the same in all of its calls, can be replaced by a row of a table. Of these the
cut takes the last ones: those whose tensor meets one of the other kind before it passes another such module. Where a label or
a prompt is added to the time embedding the cut is before the sum; where nothing is, it is behind the projection of every block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.quant.hooks import hooks

TIMESTEP = "timestep"
"""The network's argument, and the name of its own column where it enters the rest without a module between."""
READERS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "numpy", "equal", "allclose"}
"""Functions that make a number of Python of a tensor, which is then followed no further."""


@dataclass(frozen=True)
class Vector:
    """A value that depends on time alone. ``name``: of the module whose output it is, or TIMESTEP; ``shape``: of one sample's."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True, kw_only=True)
class TimePath:
    """Attributes:
    vectors: where time enters the rest of the network, in the order of the modules.
    unused: modules that only lead to them.
    rows: timesteps -> (N, sum of the vectors' sizes) float32, exactly as the network computes them; it needs none of the network's
        other layers.
    """

    vectors: tuple[Vector, ...]
    unused: tuple[Vector, ...]
    rows: Callable[[Sequence[float]], Tensor]


def find_time_path(network: nn.Module, run: Callable[[nn.Module], object]) -> TimePath:
    """What ``network`` computes of its timestep.

    Args:
        network: called as ``network(sample, timestep, ...)`` or with ``timestep`` by name, (B,) float32.
        run: calls it once on a representative input, all samples at the same timestep.
    Raises:
        ModelError: nothing in the network depends on the timestep, or it is read as a number of Python.
    """
    trace = _Trace()
    names = [name for name, _ in network.named_modules() if name]

    def watched() -> Iterator[RemovableHandle]:
        yield network.register_forward_pre_hook(trace.begin, with_kwargs=True)
        for name in names:
            yield network.get_submodule(name).register_forward_hook(
                lambda _module, args, out, name=name: trace.returned(name, args, out)
            )

    with hooks(watched()), torch.no_grad(), trace:
        run(network)
    return trace.path(names)


@dataclass(eq=False)
class _Origin:
    """A module's output of time alone, and what it was computed from."""

    name: str
    value: Tensor
    behind: frozenset[_Origin] = frozenset()


@dataclass(frozen=True)
class _Operation:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    begun: tuple[Tensor, Tensor] | None
    """A constant that the operation writes into, and what was in it before."""


@dataclass
class _Calls:
    """Of one module: outputs of time alone, and whether each call had such a one."""

    origins: list[_Origin] = field(default_factory=list)
    always: bool = True


class _Trace(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.sources: Any = WeakIdKeyDictionary()
        """Tensor -> what it was computed from; None where that is more than time. Constants are not in it."""
        self.operations: list[_Operation] = []
        self.entered: set[_Origin] = set()
        self.calls: dict[str, _Calls] = {}
        self.timestep: Tensor | None = None

    def begin(self, _network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = kwargs[TIMESTEP] if TIMESTEP in kwargs else args[1]
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self.sources[leaf] = None
        self.sources[timestep] = frozenset({_Origin(TIMESTEP, timestep)})
        self.timestep = timestep

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = [self.sources[tensor] for tensor in given if tensor in self.sources]
        of_time = frozenset[_Origin]().union(*(origins for origins in known if origins is not None))
        is_mixed = any(origins is None for origins in known)
        if of_time and getattr(func, "__name__", "") in READERS:
            raise ModelError(
                "step_vectors: the network reads its timestep as a number of Python, which cannot be followed; "
                "leave step_vectors out"
            )
        written = args[0] if args and isinstance(args[0], Tensor) and _writes(func) else None
        is_constant = written is not None and of_time and not is_mixed and written not in self.sources
        begun = (written, written.clone()) if written is not None and is_constant else None
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        made += [] if written is None else [written]
        if is_mixed:
            self.entered |= of_time if made else set()
        elif of_time and made:
            self.operations.append(_Operation(func, tuple(args), kwargs, out, begun))
        for tensor in made:
            if is_mixed:
                self.sources[tensor] = None
            elif of_time:
                self.sources[tensor] = of_time
            elif tensor in self.sources:
                del self.sources[tensor]
        return out

    def returned(self, name: str, args: tuple[Any, ...], out: Any) -> None:
        calls = self.calls.setdefault(name, _Calls())
        if not isinstance(out, Tensor):
            calls.always = False
            return
        behind = self.sources.get(out)
        passed_on = any(out is given for given in args)
        if not behind or passed_on or out.shape[:1] != self._timestep.shape[:1]:
            calls.always = False
            return
        origin = _Origin(name, out, behind)
        calls.origins.append(origin)
        self.sources[out] = frozenset({origin})

    @property
    def _timestep(self) -> Tensor:
        assert self.timestep is not None
        return self.timestep

    def path(self, order: Sequence[str]) -> TimePath:
        """Once the network has run. ``order``: names of all modules."""
        usable = {name: calls.origins[0] for name, calls in self.calls.items() if calls.origins and _are_one(calls)}
        cut = set(_latest(self.entered, usable))
        if not cut:
            raise ModelError(
                "step_vectors: nothing in this network depends on its timestep alone; leave step_vectors out"
            )
        vectors = [usable[name] for name in order if name in cut]
        vectors += [_Origin(TIMESTEP, self._timestep)] if TIMESTEP in cut else []
        inside = tuple(f"{name}." for name in cut)
        unused = [
            name
            for name in order
            if name in usable
            and name not in cut
            and not name.startswith(inside)
            and not any(each.startswith(f"{name}.") for each in cut)
        ]
        outermost = [name for name in unused if not any(name.startswith(f"{other}.") for other in unused)]
        return TimePath(
            vectors=tuple(Vector(origin.name, tuple(origin.value.shape[1:])) for origin in vectors),
            unused=tuple(Vector(name, tuple(usable[name].value.shape[1:])) for name in outermost),
            rows=_Rows(self._timestep, tuple(self.operations), tuple(origin.value for origin in vectors)),
        )


class _Rows:
    """The operations from the timestep to the vectors, done again for other timesteps."""

    def __init__(self, timestep: Tensor, operations: tuple[_Operation, ...], values: tuple[Tensor, ...]) -> None:
        self.timestep, self.operations, self.values = timestep, operations, values

    @torch.no_grad()
    def __call__(self, timesteps: Sequence[float]) -> Tensor:
        return torch.stack([self._row(timestep) for timestep in timesteps])

    def _row(self, timestep: float) -> Tensor:
        now: dict[int, Tensor] = {id(self.timestep): torch.full_like(self.timestep, timestep)}

        def at(value: Any) -> Any:
            return now.get(id(value), value) if isinstance(value, Tensor) else value

        for operation in self.operations:
            if operation.begun is not None:
                now[id(operation.begun[0])] = operation.begun[1].clone()
            made = operation.function(*tree_map(at, operation.args), **tree_map(at, dict(operation.kwargs)))
            for before, after in zip(tree_leaves(operation.output), tree_leaves(made), strict=True):
                if isinstance(before, Tensor):
                    now[id(before)] = after
        return torch.cat([now[id(value)][0].reshape(-1).to(torch.float32) for value in self.values])


def _writes(function: Callable[..., Any]) -> bool:
    """Whether a method of Tensor changes the tensor itself, as ``add_``, ``+=`` and assignment to a part of it do."""
    name = getattr(function, "__name__", "")
    in_place = (name.endswith("_") and not name.endswith("__")) or (name.startswith("__i") and name not in READERS)
    return in_place or name == "__setitem__"


def _are_one(calls: _Calls) -> bool:
    """Whether every call gave a tensor of time alone, and all of them the same."""
    first = calls.origins[0].value
    return calls.always and all(torch.equal(first, origin.value) for origin in calls.origins[1:])


def _latest(origins: Iterable[_Origin], usable: Mapping[str, _Origin]) -> Iterator[str]:
    """Names of the usable origins that these stand for: themselves, or those behind them."""
    for origin in origins:
        if origin.name == TIMESTEP or origin.name in usable:
            yield origin.name
        else:
            yield from _latest(origin.behind, usable)
