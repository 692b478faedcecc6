"""Operation by operation: does a graph compute what the integer simulation computes?

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

from dq_toolchain.backends.tensorrt.proof.reading import multiplied, producer, products, read_quantized, tensor_of
from dq_toolchain.backends.tensorrt.runtime.session import open_session
from dq_toolchain.backends.tensorrt.vendor import graph_passes, onnx_ir
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.attention import RIGHT_OPERAND
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.simulation.network import SimulatedLayer, SimulatedNetwork

IN, INTEGERS, OUT = "in::", "integers::", "out::"


@dataclass(frozen=True)
class Comparison:
    """One call, every operation by itself.

    Attributes:
        different: places where an integer differs. places: in all. largest: difference, in integer steps.
        output_error: largest ||graph - simulation|| / ||simulation|| of a product whose integers are all equal.
        worst: the product where it occurs. products: how many were compared so; compared: how many in all.
    """

    different: int
    places: int
    largest: int
    output_error: float
    worst: str
    products: int
    compared: int


@torch.no_grad()
def compare(
    path: Path, artifact: Artifact, simulated: SimulatedNetwork, k: int, inputs: Mapping[str, Tensor]
) -> Comparison:
    """Execute the pieces of one graph on what the simulation's operations get at step k.

    Args:
        path: of the graph; the one that is cut is written beside it for a moment.
        inputs: sample, timestep and conditioning by name, ``ranges`` where the graph takes them.
    """
    simulated.set_step(k)
    keywords = {name: value for name, value in inputs.items() if name not in ("sample", "timestep", "ranges")}
    with simulated.recording() as integers, _layer_values(simulated) as (entering, leaving):
        call_network(simulated, inputs["sample"], inputs["timestep"], keywords)
    scale = artifact.scale[artifact.group_of_step[k]]
    for index, site in enumerate(artifact.sites):
        if (
            site.kind == "attention"
        ):  # what the quantizer was given is not kept; its integers times the scale are the same to it
            entering[site.name] = integers[site.name] * scale[index]
    with _cut(path) as (session, names):
        feeds = {port.name: _feed(port, entering, inputs) for port in session.get_inputs()}
        values = dict(zip(names, session.run(names, feeds), strict=True))
    return _judge({name: torch.from_numpy(value) for name, value in values.items()}, integers, leaving, artifact, scale)


def _judge(
    values: Mapping[str, Tensor],
    integers: Mapping[str, Tensor],
    leaving: Mapping[str, Tensor],
    artifact: Artifact,
    scale: Tensor,
) -> Comparison:
    different = places = largest = equal = compared = 0
    error, worst = 0.0, ""
    for name in (name.removeprefix(OUT) for name in values if name.startswith(OUT)):
        sites, wanted = [f"{name}:input"], leaving.get(name)
        if wanted is None:
            sites = _pair(name)
            left, right = (integers[site] * scale[artifact.site_index(*site.rsplit(":", 1))] for site in sites)
            wanted = torch.bmm(left.to(torch.float64), right.to(torch.float64)).to(torch.float32)
        flips = 0
        for site in sites:
            distance = (values[INTEGERS + site].to(torch.float32) - integers[site]).abs()
            flips, places, largest = (
                flips + int((distance > 0).sum()),
                places + distance.numel(),
                max(largest, int(distance.max())),
            )
        different, compared = different + flips, compared + 1
        if flips == 0:
            equal += 1
            found = float(relative_error(values[OUT + name].to(torch.float32).reshape(wanted.shape), wanted).max())
            error, worst = max((error, worst), (found, name))
    return Comparison(different, places, largest, error, worst, equal, compared)


def _pair(name: str) -> list[str]:
    layer, operand = name.rsplit(":", 1)
    return [f"{layer}:{operand}", f"{layer}:{RIGHT_OPERAND[operand]}"]


@contextmanager
def _layer_values(simulated: SimulatedNetwork) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """What enters every site and leaves every layer during a call, by site and by layer."""
    entering: dict[str, Tensor] = {}
    leaving: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
            entering[f"{name}:input"], leaving[name] = inputs[0], out

        return hook

    handles = (
        layer.register_forward_hook(keep(name))
        for name, layer in simulated.inner.named_modules()
        if isinstance(layer, SimulatedLayer)
    )
    with hooks(handles):
        yield entering, leaving


@contextmanager
def _cut(path: Path) -> Iterator[tuple[Any, list[str]]]:
    """A session of the graph in pieces, and the names of its outputs."""
    ir = onnx_ir()
    model = ir.load(path)
    graph, names = model.graph, []
    graph.outputs.clear()
    cut: dict[Any, str] = {}

    def output(value: Any, name: str) -> None:
        copy = ir.Node("", "Identity", [value], name=name)
        copy.outputs[0].name, copy.outputs[0].shape, copy.outputs[0].type = name, value.shape, value.type
        graph.append(copy)
        graph.outputs.append(copy.outputs[0])
        names.append(name)

    for node in list(products(graph)):
        sites = _pair(node.name) if ":" in node.name else [f"{node.name}:input"]
        operands = [read_quantized(value) for value in node.inputs[: len(sites)]]
        if any(operand is None for operand in operands):
            continue  # an attention product in float
        for site, operand in zip(sites, operands, strict=True):
            first = producer(operand.source, "Div") or operand.quantize  # type: ignore[union-attr]
            if first not in cut:
                given = ir.Value(name=IN + site, shape=first.inputs[0].shape, type=first.inputs[0].type)
                graph.inputs.append(given)
                first.replace_input_with(0, given)
                cut[first] = site
            output(operand.quantize.outputs[0], INTEGERS + site)  # type: ignore[union-attr]
        output(_whole(node), OUT + node.name)
    graph_passes().RemoveUnusedNodesPass()(model)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    pieces = path.with_name(f".{path.stem}.pieces.onnx")
    try:
        ir.save(model, pieces)
        yield open_session(pieces), names
    finally:
        pieces.unlink(missing_ok=True)


def _whole(node: Any) -> Any:
    """What a layer gives: behind the product its ratio and factors, and behind these the bias that is no input of the product."""
    out = multiplied(node)
    users = [user for user, _ in out.uses()]
    if len(users) == 1 and users[0].op_type == "Add" and any(tensor_of(value) is not None for value in users[0].inputs):
        out = users[0].outputs[0]
    return out


def _feed(port: Any, entering: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Any:
    name = port.name
    tensor = entering[name.removeprefix(IN)].reshape(port.shape) if name.startswith(IN) else inputs[name]
    return tensor.to(torch.float16).numpy() if port.type == "tensor(float16)" else tensor.numpy()
