"""A quantized network whose passes are replayed from recordings: one launch in the place of a thousand.

A small network leaves a GPU waiting for the next launch most of the time. What is recorded is one pass of the network for
one step group, one shape of its inputs and one choice of what needs a gradient; the sampler around it stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.network.recorded import GradientPass, Gradients, PlainPass, put
from dq_toolchain.calibrate.network.recorder import CudaGraphs, Recorder

WORTH_RECORDING = 3
"""Passes of one kind run as they are before the next one is recorded: recording takes as long as so many."""

NewRecorder = Callable[[], Recorder]
Warn = Callable[[str], None]


def recorder_for(device: torch.device) -> NewRecorder | None:
    """What makes recorders for a device; None where there are none, as on a CPU."""
    return (lambda: CudaGraphs(device)) if device.type == "cuda" else None


@contextmanager
def replayed(
    network: QuantizedNetwork,
    new_recorder: NewRecorder | None,
    warn: Warn,
    *,
    learns_weights: bool,
) -> Iterator[None]:
    """Inside, passes of the network are recorded and replayed: the same numbers. Afterwards their memory is free again.

    What cannot be recorded runs as it is, and ``warn`` is told once.

    Args:
        new_recorder: None changes nothing.
        learns_weights: ``weights_once`` will be used.
    """
    if new_recorder is None or network.low_memory:
        yield
        return
    graphs = Graphs(network, new_recorder, warn)
    network.graphs = graphs if not learns_weights or graphs.record_weights(new_recorder) else None
    del graphs
    try:
        yield
    finally:
        network.graphs = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # only then is the memory of recordings anybody else's


@contextmanager
def not_replayed(network: QuantizedNetwork) -> Iterator[None]:
    """Inside, every pass runs as it is, as hooks on the network's modules need it."""
    graphs, network.graphs = network.graphs, None
    try:
        yield
    finally:
        network.graphs = graphs


class Graphs:
    """The recordings of one network during a fit.

    Weights are dequantized into places that stay, which passes read and whose gradients they add to.
    """

    def __init__(self, network: QuantizedNetwork, new_recorder: NewRecorder, warn: Warn) -> None:
        self.network, self.warn = network, warn
        quantizers = [layer.weight_quantizer for layer in network.layers.values()]
        self._weights = [torch.empty_like(quantizer.weight) for quantizer in quantizers]
        self._learned = [p for q in quantizers for p in (q.log_scale, q.offset) if p is not None]
        biases = [layer.bias for layer in network.layers.values() if layer.bias is not None]
        self._leaves = [*network.scale_parameters().values(), *biases, *self._weights]
        self._gradients = Gradients([*self._leaves, *self._learned])
        self._recorder: Recorder | None = new_recorder()
        self._asked: Counter[Hashable] = Counter()
        self._passes: dict[Hashable, PlainPass | GradientPass] = {}
        self._anchor = torch.empty(0, device=self._leaves[0].device, requires_grad=True)
        self._turn = 0
        self._in_force = False
        self._dequantize, self._send_back = _nothing, _nothing

    def record_weights(self, new_recorder: NewRecorder) -> bool:
        """Make ready for ``weights_once``; False if it cannot be recorded. In memory of its own: passes are replayed between."""
        made: list[Tensor] = []

        def dequantize() -> None:
            with torch.enable_grad():
                made[:] = [layer.weight_quantizer() for layer in self.network.layers.values()]
            put(self._weights, made)
            torch._foreach_zero_([self._gradients.of[weight] for weight in self._weights])

        def send_back() -> None:
            given = [self._gradients.of[weight] for weight in self._weights]
            learned = [p for p in self._learned if p.requires_grad]
            self._gradients.add(learned, torch.autograd.grad(made, learned, given, allow_unused=True))

        self._gradients.settle()
        try:
            with self._gradients.kept(self._learned):
                self._dequantize, self._send_back = new_recorder().record((dequantize, send_back))
        except RuntimeError as error:
            self._give_up(error)
            return False
        return True

    @contextmanager
    def weights_once(self) -> Iterator[None]:
        """``QuantizedNetwork.weights_once`` from a recording."""
        with self._weights_in_force(learn=True):
            self._gradients.settle()
            self._dequantize()
            yield
        self._send_back()

    @contextmanager
    def frozen_weights(self) -> Iterator[None]:
        """Inside, layers compute with the weights that their quantizers give now."""
        with torch.no_grad():
            put(self._weights, [layer.weight_quantizer() for layer in self.network.layers.values()])
        with self._weights_in_force(learn=False):
            yield

    @contextmanager
    def _weights_in_force(self, learn: bool) -> Iterator[None]:
        for layer, weight in zip(self.network.layers.values(), self._weights, strict=True):
            # no integer products: their packed weights would stay what they were when a pass was recorded
            layer.fix_weight(weight.requires_grad_(learn), rounded=False)
        self._in_force = True
        try:
            yield
        finally:
            self._in_force = False
            for layer in self.network.layers.values():
                layer.fix_weight(None, rounded=False)

    def __call__(self, sample: Tensor, timestep: Tensor, keywords: Mapping[str, Tensor]) -> Tensor:
        """The network's output, as ``QuantizedNetwork`` gives it."""
        inputs, names = (sample, timestep, *keywords.values()), tuple(keywords)
        learning = torch.is_grad_enabled() and (*(leaf.requires_grad for leaf in self._leaves), sample.requires_grad)
        key = (
            self.network.switch.current,
            names,
            tuple((x.shape, x.stride(), x.dtype) for x in inputs),
            _arithmetic(sample.device),
            learning and any(learning) and learning,
        )
        found = self._passes.get(key) or self._recorded(key, names, inputs)
        if found is None:
            return self.network.plain(sample, timestep, keywords)
        self._turn += 1
        if isinstance(found, PlainPass):
            return found(inputs)
        self._gradients.settle()
        output: Tensor = _Replayed.apply(sample, self._anchor, self, found, inputs)  # type: ignore[no-untyped-call]
        return output

    def _recorded(self, key: tuple[Any, ...], names: tuple[str, ...], inputs: Sequence[Tensor]) -> Any:
        """A pass recorded now; None if it is not worth it yet, or not possible."""
        if self._recorder is None or not self._in_force:
            return None
        self._asked[key] += 1
        if self._asked[key] <= WORTH_RECORDING:
            return None

        def function(sample: Tensor, timestep: Tensor, *values: Tensor) -> Tensor:
            return self.network.plain(sample, timestep, dict(zip(names, values, strict=True)))

        self._turn += 1
        try:
            if key[-1]:
                leaves = [leaf for leaf in self._leaves if leaf.requires_grad]
                self._gradients.settle()
                made: Any = GradientPass(self._recorder, function, inputs, leaves, self._gradients)
            else:
                made = PlainPass(self._recorder, function, inputs)
        except RuntimeError as error:
            self._give_up(error)
            return None
        self._passes[key] = made
        return made

    def _give_up(self, error: RuntimeError) -> None:
        self._recorder, self._passes = None, {}
        first: BaseException = error
        while isinstance(
            first.__context__, RuntimeError
        ):  # what follows from it, such as a recording that ends, says less
            first = first.__context__
        reason = str(first).strip().partition("\n")[0] or type(first).__name__
        self.warn(
            f"passes of the network are not replayed as CUDA graphs; the numbers are the same, but it takes longer: {reason}"
        )

    def __len__(self) -> int:
        """Kinds of passes that were recorded."""
        return len(self._passes)

    @property
    def turn(self) -> int:
        """Counts passes; what two of them share in memory belongs to the latest."""
        return self._turn


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sample: Tensor, anchor: Tensor, graphs: Graphs, found: GradientPass, inputs: Sequence[Tensor]
    ) -> Tensor:
        """``anchor`` needs a gradient, so that the output does, whether the sample does or not."""
        ctx.graphs, ctx.found, ctx.turn = graphs, found, graphs.turn
        return found.forward(inputs)

    @staticmethod
    def backward(ctx: Any, costate: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        if ctx.graphs.turn != ctx.turn:
            raise RuntimeError("another pass was replayed before this one was differentiated; its activations are gone")
        return ctx.found.backward(costate), None, None, None, None


def _arithmetic(device: torch.device) -> tuple[object, ...]:
    """What decides the arithmetic of a pass, beside its inputs."""
    backends = torch.backends
    return (
        torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type),
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
    )


def _nothing() -> None: ...
