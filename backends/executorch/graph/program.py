"""From a network with integer layers to the bytes of a .pte: wrap, export with torch, lower with XNNPACK.

The bytes are only a claim until audit.py has read them back and device.py has executed them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.call import Call, PositionalNetwork
from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.executorch.graph.layers import Geometry, LayerFactory, OfRow, RangesInput
from dq_toolchain.backends.executorch.graph.partition import level_partitioner
from dq_toolchain.backends.executorch.graph.passes import drop_divisions_by_one, spell_out_tanh_gelu
from dq_toolchain.backends.executorch.vendor import NOISE, lowering
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.models.architectures import call_network, fix_positions
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.sites import weighted_layers


@torch.no_grad()
def _watch(network: nn.Module, call: Call, look: Callable[[str, Tensor], None]) -> None:
    """Run the network once and show the name and the input of every convolution and Linear, each time it is called."""
    handles = (
        layer.register_forward_pre_hook(lambda _layer, inputs, name=name: look(name, inputs[0]))
        for name, layer in weighted_layers(network)
    )
    with hooks(handles):
        call_network(network, call.sample, call.timestep, call.conditioning)


def input_shapes(network: nn.Module, call: Call) -> dict[str, tuple[int, ...]]:
    """Shape of the input of every convolution and Linear, by layer name, found by running the network once."""
    shapes: dict[str, tuple[int, ...]] = {}

    def look(name: str, x: Tensor) -> None:
        if shapes.setdefault(name, tuple(x.shape)) != tuple(x.shape):
            raise BackendError(
                f"{name} is called twice with different shapes, which target 'executorch' cannot "
                "hold; use a UNet that calls each layer once"
            )

    _watch(network, call, look)
    return shapes


def call_counts(network: nn.Module, call: Call) -> Counter[str]:
    """How often one call of the network runs each convolution and Linear, by layer name."""
    counts: Counter[str] = Counter()
    _watch(network, call, lambda name, _x: counts.update((name,)))
    return counts


def with_integer_layers(network: nn.Module, call: Call, factory: LayerFactory, kept: Collection[str] = ()) -> nn.Module:
    """Replace every convolution and Linear but ``kept``, in place, by what ``factory`` makes of it; float weights are dropped."""
    shapes = input_shapes(network, call)
    for name, layer in list(weighted_layers(network)):
        if name in kept:
            continue
        if name not in shapes:
            raise BackendError(
                f"{name} is never called by the UNet, so nothing is known of its input; "
                "use a UNet without unused layers"
            )
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)  # support.py refused the others
        made = factory(name, layer, Geometry.of(layer, shapes[name]))
        network.set_submodule(name, OfRow(made) if isinstance(layer, nn.Conv1d) else made)
    return network


def export(
    network: nn.Module,
    call: Call,
    ranges: Tensor | None = None,
    port: RangesInput | None = None,
    *,
    rewritten: bool = True,
) -> torch.export.ExportedProgram:
    """torch.export of one method. ``ranges`` (1, 2L) is an example of the input that ``port`` hands to the layers.

    ``rewritten``: remove from the graph, too, what slows XNNPACK down; False leaves it as torch exports it.
    """
    fix_positions(network, call.sample, call.conditioning)
    with torch.no_grad(), quiet(NOISE):
        program = PositionalNetwork(network, tuple(call.conditioning), None if port is None else port.set).eval()
        exported: torch.export.ExportedProgram = torch.export.export(
            program, call.with_ranges(ranges).arguments, strict=False
        )
    spell_out_tanh_gelu(exported)
    if rewritten:
        drop_divisions_by_one(exported)
    return exported


def lower_methods(methods: Mapping[str, torch.export.ExportedProgram]) -> bytes:
    """The .pte of one or more exported methods; constants are shared between them.

    Raises:
        BackendError: executorch refuses the program.
    """
    tools = lowering()
    try:
        with quiet(NOISE):
            edge = tools.to_edge_transform_and_lower(
                dict(methods),
                partitioner={name: [level_partitioner(tools.XnnpackPartitioner)()] for name in methods},
                compile_config=tools.EdgeCompileConfig(_check_ir_validity=False),
            )
            buffer = edge.to_executorch().buffer
    except (RuntimeError, AssertionError, KeyError, NotImplementedError, ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        raise BackendError(
            f"executorch cannot lower this network: {type(error).__name__} {text[:300]}; "
            "report it with the model's config.json"
        ) from error
    return bytes(buffer)
