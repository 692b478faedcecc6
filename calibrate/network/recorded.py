"""A function of tensors as a recording: its inputs, its gradients and all between them stay at one place in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dq_toolchain.calibrate.network.recorder import Recorder

Function = Callable[..., Tensor]


class Gradients:
    """``.grad`` of some leaves at places that stay: recordings add to them."""

    def __init__(self, leaves: Iterable[Tensor]) -> None:
        self.of = {leaf: torch.zeros_like(leaf) for leaf in leaves}

    def settle(self) -> None:
        """Make each place its leaf's ``.grad``, with the number that ``.grad`` has."""
        for leaf, place in self.of.items():
            if leaf.grad is place or not leaf.requires_grad:
                continue
            if leaf.grad is None:
                place.zero_()
            else:
                place.copy_(leaf.grad)
            leaf.grad = place

    @contextmanager
    def kept(self, leaves: Sequence[Tensor]) -> Iterator[None]:
        """The gradients of these leaves are afterwards what they were: recording them adds to them."""
        places = [self.of[leaf] for leaf in leaves]
        kept = [place.clone() for place in places]
        try:
            yield
        finally:
            put(places, kept)

    def add(self, leaves: Sequence[Tensor], found: Sequence[Tensor | None]) -> None:
        """Add to the gradients of those leaves that were reached."""
        reached = [(self.of[leaf], each) for leaf, each in zip(leaves, found, strict=True) if each is not None]
        if reached:
            torch._foreach_add_([place for place, _ in reached], [each for _, each in reached])


class PlainPass:
    """A function without gradient."""

    def __init__(self, recorder: Recorder, function: Function, inputs: Sequence[Tensor]) -> None:
        """``inputs``: examples, of which shapes, dtypes and memory formats stay."""
        places = [place_for(x) for x in inputs]
        outputs: list[Tensor] = []

        @torch.no_grad()
        def forward() -> None:
            outputs[:] = [function(*places)]

        (self._forward,) = recorder.record((forward,))
        self._places, (self._output,) = places, outputs

    @torch.no_grad()
    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        put(self._places, inputs)
        self._forward()
        return self._output.clone()


class GradientPass:
    """A function whose result may be differentiated, once per call and before anything else of its recorder is replayed.

    Gradients of the leaves are added to their places; that of the first input, if it needs one, is handed on.
    """

    def __init__(
        self,
        recorder: Recorder,
        function: Function,
        inputs: Sequence[Tensor],
        leaves: Sequence[Tensor],
        gradients: Gradients,
    ) -> None:
        """Args:
        inputs: examples, as in ``PlainPass``.
        leaves: those with a place in ``gradients`` that need a gradient.
        """
        places = [place_for(x) for x in inputs]
        wanted = [places[0]] if inputs and inputs[0].requires_grad else []
        outputs: list[Tensor] = []
        costates: list[Tensor] = []
        of_input: list[Tensor | None] = []

        @torch.enable_grad()
        def forward() -> None:
            outputs[:] = [function(*places)]
            costates.extend(torch.zeros_like(x) for x in outputs[len(costates) :])  # once, while warming up

        def backward() -> None:
            found = torch.autograd.grad(outputs, [*wanted, *leaves], costates, allow_unused=True)
            of_input[:] = found[: len(wanted)]
            gradients.add(leaves, found[len(wanted) :])

        with gradients.kept(leaves):
            self._forward, self._backward = recorder.record((forward, backward))
        self._places, self._output, self._costate = places, outputs[0].detach(), costates[0]
        self._of_input = next(iter(of_input), None)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        put(self._places, inputs)
        self._forward()
        return self._output.clone()

    def backward(self, costate: Tensor) -> Tensor | None:
        self._costate.copy_(costate)
        self._backward()
        return None if self._of_input is None else self._of_input.clone()


def place_for(x: Tensor) -> Tensor:
    """Memory for tensors like x, with its numbers; a leaf that needs a gradient if x does."""
    return torch.empty_like(x).copy_(x.detach()).requires_grad_(x.requires_grad)


@torch.no_grad()
def put(places: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy each value into its place."""
    if places:
        torch._foreach_copy_(list(places), list(values))
