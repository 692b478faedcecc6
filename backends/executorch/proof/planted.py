"""Whether the planted values of a layer dictate every range that XNNPACK takes of its input, and are as few as can be."""

from __future__ import annotations

from math import prod

from dq_toolchain.backends.executorch.proof.products import fail, range_dims
from dq_toolchain.backends.executorch.proof.pte_file import Graph, Node
from dq_toolchain.backends.executorch.proof.trace import Entry


def check_planted(graph: Graph, node: Node, layer: str, entry: Entry, shape: tuple[int, ...]) -> None:
    """Compare with what a layer needs: both ends in every stretch of the input over which XNNPACK takes one range.

    Args:
        shape: of the layer's filter without planted channels, (out, in, height, width) or (out, in).
    Raises:
        BackendError: a range depends on the data, or the planted channels are more or fewer than needed.
    """
    _, features, *kernel = shape
    alone = prod(kernel) == 1  # tokens, and pixels of convolutions that XNNPACK executes as matrix products
    dims, wanted_dims = range_dims(graph, node), 3 if kernel else 1
    if dims != wanted_dims:
        raise fail(f"the range of {layer} is taken over {dims} dimensions of its input, expected {wanted_dims}")
    stretches = entry.high.reshape(-1, entry.high.shape[-1]) if alone else entry.high.reshape(len(entry.high), -1)
    if not (stretches.any(axis=1) & ~stretches.all(axis=1)).all():
        where = "pixel" if alone and kernel else "picture" if kernel else "row"
        raise fail(f"a {where} of the input of {layer} does not hold both ends of its range")
    channels, pixels = entry.high.shape[-1], prod(entry.high.shape[1:-1])
    # XNNPACK packs 4-bit weights in pairs, so that rows have an even width with what is planted.
    of_row, of_picture = 2 + features % 2, 2 if alone or pixels == 1 else 1
    wanted = of_picture if kernel else of_row
    if channels != wanted:
        raise fail(f"{channels} channels are planted in the input of {layer}, expected {wanted}")
