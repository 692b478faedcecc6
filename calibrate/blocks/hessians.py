"""Hessians of layers' outputs with respect to their weights: sums of x x^T over inputs of the FP32 network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.blocks.second_order import blocks_of, groups_of, input_patches, outputs_of, patches_at
from dq_toolchain.calibrate.work.seeds import hash_seed
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.layers import Layer
from dq_toolchain.toolchain.sampler.transfer import to_device

POSITIONS = 64
"""Outputs of one evaluation whose inputs count at most; drawn for each batch anew, those of an image are much alike."""
ROOM = 2**30
"""Bytes of Hessians that are summed at once; a network that has more is run once for each part."""


def in_parts(layers: dict[str, Layer]) -> list[list[str]]:
    """The layers, in order, in parts whose Hessians fit into ``ROOM``, one layer at least."""
    parts: list[list[str]] = [[]]
    taken = 0
    for name, layer in layers.items():
        size = bytes_of(layer)
        if parts[-1] and taken + size > ROOM:
            parts.append([])
            taken = 0
        parts[-1].append(name)
        taken += size
    return parts


def bytes_of(layer: Layer) -> int:
    """Of the layer's Hessians."""
    values: int = sum((part.stop - part.start) ** 2 for part in blocks_of(layer))
    return 4 * groups_of(layer) * values


@torch.no_grad()
def hessians_of(
    network: nn.Module,
    layers: dict[str, Layer],
    rows: Evaluations,
    batch: int,
    device: torch.device,
    seed: int,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, list[Tensor]]:
    """Run the network over rows.

    Args:
        layers: of the network, by name.
        rows: on the CPU. batch: of them at once.
        advance: told of each row that is done.
    Returns:
        layer -> its blocks, (groups, columns, columns) float32 on the device; zeros where a layer was never called.
    """
    found = {name: zeros_of(layer, device) for name, layer in layers.items()}
    done = 0

    def before_call(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            generator = torch.Generator().manual_seed(hash_seed(seed, done))
            _add(found[name], layers[name], args[0].float(), generator)

        return count

    def watched() -> Iterator[RemovableHandle]:
        for name, layer in layers.items():
            yield layer.register_forward_pre_hook(before_call(name))

    with hooks(watched()):
        for part in rows.batches(batch):
            on_device = part.to(device)
            call_network(network, on_device.sample, on_device.timestep, on_device.keywords)
            done += len(part)
            advance(len(part))
    return found


def zeros_of(layer: Layer, device: torch.device) -> list[Tensor]:
    """The layer's blocks before a sum, (groups, columns, columns) float32 each."""
    sizes = [part.stop - part.start for part in blocks_of(layer)]
    return [torch.zeros((groups_of(layer), size, size), device=device) for size in sizes]


def add_products(sums: list[Tensor], layer: Layer, columns: Tensor) -> None:
    """Add x x^T of every row x to the layer's blocks. columns: (groups, rows, K)."""
    for total, part in zip(sums, blocks_of(layer), strict=True):
        x = columns[..., part]
        total.baddbmm_(x.transpose(1, 2), x)


def _add(sums: list[Tensor], layer: Layer, x: Tensor, generator: torch.Generator) -> None:
    outputs = outputs_of(layer, x)
    if outputs > POSITIONS:
        chosen = torch.randperm(outputs, generator=generator)[:POSITIONS]
        patches = patches_at(layer, x, to_device(chosen, x.device))
    else:
        patches = input_patches(layer, x)
    add_products(sums, layer, patches.flatten(0, 1).transpose(0, 1))
