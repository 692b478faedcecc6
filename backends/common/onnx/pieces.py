"""A graph in pieces, operation by operation, to be compared with the integer simulation.

A flip of one rounding travels through a network and grows, so free-running outputs say little. Here the graph is cut in
front of every quantizer and behind every product, and each piece gets the simulation's own input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.onnx.libraries import graph_passes, onnx_ir
from dq_toolchain.backends.common.onnx.reading import Quantized, products, read_quantized
from dq_toolchain.backends.common.onnx.session import open_session
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.attention import RIGHT_OPERAND
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.simulation.network import SimulatedLayer, SimulatedNetwork

IN, INTEGERS, OUT = "in::", "integers::", "out::"
OWN_INPUTS = ("sample", "timestep", "step_vectors", "ranges")
"""Of a program; the others are the network's conditioning."""


@dataclass(frozen=True)
class Ends:
    """Where a target's graph is cut. ``first``: the node in front of which a quantized operand is given; ``whole``: the value that
    is what a product, by its node, gives."""

    first: Callable[[Quantized], Any]
    whole: Callable[[Any], Any]


@dataclass(frozen=True)
class Forced:
    """One call, every operation by itself.

    Attributes:
        values: of the graph, by ``INTEGERS`` and site or ``OUT`` and product.
        integers: of the simulation, by site. leaving: what its layers give. scale: (L,) of its sites.
    """

    values: Mapping[str, Tensor]
    integers: Mapping[str, Tensor]
    leaving: Mapping[str, Tensor]
    scale: Tensor
    artifact: Artifact

    @property
    def products(self) -> tuple[str, ...]:
        """Names of what was compared: a layer, or an attention product's first site."""
        return tuple(name.removeprefix(OUT) for name in self.values if name.startswith(OUT))

    def wanted(self, product: str) -> Tensor:
        """What the simulation's integers of a product give, float32, before any result is quantized for attention."""
        if product in self.leaving:
            return self.leaving[product]
        left, right = (self.integers[site] * self.scale[self.artifact.site_index(*site.rsplit(":", 1))]
                       for site in sites_of(product))  # fmt: skip
        return torch.bmm(left.to(torch.float64), right.to(torch.float64)).to(torch.float32)


def sites_of(product: str) -> list[str]:
    """The operands of a product, by its name."""
    if ":" not in product:
        return [f"{product}:input"]
    layer, operand = product.rsplit(":", 1)
    return [f"{layer}:{operand}", f"{layer}:{RIGHT_OPERAND[operand]}"]


@torch.no_grad()
def teacher_forced(
    path: Path, artifact: Artifact, simulated: SimulatedNetwork, k: int, inputs: Mapping[str, Tensor], ends: Ends,
    open: Callable[[Path], Any] = open_session,
) -> Forced:  # fmt: skip
    """Execute the pieces of one graph on what the simulation's operations get at step k.

    Args:
        path: of the graph; the one that is cut is written beside it for a moment.
        inputs: sample, timestep or step vectors, and conditioning by name, ``ranges`` where the graph takes them.
        open: makes a session, with ONNX Runtime's interface, of a file.
    """
    simulated.set_step(k)
    time = inputs.get("step_vectors", inputs.get("timestep"))
    assert time is not None
    keywords = {name: value for name, value in inputs.items() if name not in OWN_INPUTS}
    with simulated.recording() as integers, _layer_values(simulated) as (entering, leaving):
        call_network(simulated, inputs["sample"], time, keywords)
    scale = artifact.scale[artifact.group_of_step[k]]
    for index, site in enumerate(artifact.sites):
        if site.kind == "attention":
            # what the quantizer was given is not kept; its integers times the scale are the same to it
            entering[site.name] = integers[site.name] * scale[index]
    with cut(path, ends) as (pieces, names):
        session = open(pieces)
        feeds = {port.name: _feed(port, entering, inputs) for port in session.get_inputs()}
        values = dict(zip(names, map(_tensor, session.run(names, feeds)), strict=True))
    return Forced(values, integers, leaving, scale, artifact)


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(array.astype("int32") if array.dtype == "uint16" else array)


@contextmanager
def _layer_values(simulated: SimulatedNetwork) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """What enters every site and what every layer gives before it is quantized, during a call, by site and by layer."""
    entering: dict[str, Tensor] = {}
    leaving: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
            assert isinstance(layer, SimulatedLayer)
            entering[f"{name}:input"] = inputs[0]
            leaving[name] = out if layer.result is None else layer.float_output(inputs[0])

        return hook

    handles = (
        layer.register_forward_hook(keep(name))
        for name, layer in simulated.inner.named_modules()
        if isinstance(layer, SimulatedLayer)
    )
    with hooks(handles):
        yield entering, leaving


@contextmanager
def cut(path: Path, ends: Ends) -> Iterator[tuple[Path, list[str]]]:
    """A file of the graph in pieces, and the names of its outputs: integers of every site, result of every product."""
    ir = onnx_ir()
    model = ir.load(path)
    graph, names = model.graph, []
    graph.outputs.clear()
    given_to: set[Any] = set()

    def output(value: Any, name: str) -> None:
        copy = ir.Node("", "Identity", [value], name=name)
        copy.outputs[0].name, copy.outputs[0].shape, copy.outputs[0].type = name, value.shape, value.type
        graph.append(copy)
        graph.outputs.append(copy.outputs[0])
        names.append(name)

    for node in list(products(graph)):
        sites = sites_of(node.name)
        operands = [read_quantized(value) for value in node.inputs[: len(sites)]]
        if any(operand is None for operand in operands):
            continue  # an attention product in float
        for site, operand in zip(sites, operands, strict=True):
            assert operand is not None
            first = ends.first(operand)
            if first not in given_to:
                given = ir.Value(name=IN + site, shape=first.inputs[0].shape, type=first.inputs[0].type)
                graph.inputs.append(given)
                first.replace_input_with(0, given)
                given_to.add(first)
            output(operand.quantize.outputs[0], INTEGERS + site)
        output(ends.whole(node), OUT + node.name)
    graph_passes().RemoveUnusedNodesPass()(model)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    pieces = path.with_name(f".{path.stem}.pieces.onnx")
    try:
        ir.save(model, pieces)
        yield pieces, names
    finally:
        pieces.unlink(missing_ok=True)


def _feed(port: Any, entering: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Any:
    name = port.name
    tensor = entering[name.removeprefix(IN)].reshape(port.shape) if name.startswith(IN) else inputs[name]
    return tensor.to(torch.float16).numpy() if port.type == "tensor(float16)" else tensor.numpy()
