"""Proof, from the saved program alone, that a text encoder or a decoder holds its integers, their scales and its biases.

As in the audit of the network, layers are recognised by their integers. Arithmetic is float here, so there is nothing else in
integers: what a layer multiplies by are its integers, unpacked, or the export stops.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from dq_toolchain.backends.common.qdq.layer_numbers import check_tail, fail, nearest
from dq_toolchain.backends.common.qdq.reading import Found, Reader, Unreadable, Weight, digest
from dq_toolchain.toolchain.parts.part import Part

ProgramT = TypeVar("ProgramT", contravariant=True)


class PartReader(Reader[ProgramT], Protocol[ProgramT]):
    """A target's eyes on the program of a part. Every method but the first raises Unreadable."""

    def lookups(self, program: ProgramT) -> Iterator[Found]:
        """Every operation that looks rows up in a table with integers, or in one of floats with rows longer than one."""

    def rows(self, op: Any) -> Weight:
        """The table of a lookup in integers; its scale is (rows,)."""

    def row_factors(self, op: Any, count: int) -> Tensor:
        """The product of ``count`` numbers per row by which the rows are multiplied after they were looked up, (rows,)."""

    def floats(self, op: Any) -> Tensor | None:
        """The float numbers that a product or lookup in float holds."""


def audit_part(program: ProgramT, part: Part, half: bool, reader: PartReader[ProgramT]) -> None:
    """Check the program of a part.

    Args:
        half: its arithmetic is fp16.
    Raises:
        BackendError: an integer, a scale or a bias differs, a layer is missing, or a product runs with float weights.
    """
    left = {name: digest(weights.weight_q) for name, weights in part.layers.items()}
    try:
        for found in reader.products(program):
            weight = _integers(found, part, left, reader, reader.weight)
            _cross_off(found, weight, part, half, left, reader, lookup=False)
        for found in reader.lookups(program):
            weight = _integers(found, part, left, reader, reader.rows)
            _cross_off(found, weight, part, half, left, reader, lookup=True)
    except Unreadable as error:
        raise fail(f"{part.name}: {error}") from error
    if left:
        raise fail(f"{part.name}: {next(iter(left))} is not in the program")


def _integers(found: Found, part: Part, left: dict[str, bytes], reader: PartReader[Any], read: Any) -> Weight:
    if found.kind == "product":
        raise Unreadable(f"{found.text} multiplies what was quantized, which no part is")
    if found.kind == "float":
        values = reader.floats(found.op)
        near = "" if values is None else nearest(values, part, left, in_float=True)
        raise Unreadable(f"{found.text} runs with float weights{near}")
    weight: Weight = read(found.op)
    return weight


def _cross_off(
    found: Found,
    weight: Weight,
    part: Part,
    half: bool,
    left: dict[str, bytes],
    reader: PartReader[Any],
    lookup: bool,
) -> None:
    """Take the layer from ``left``: among those of the same integers, the one of which the rest is right too."""
    own = digest(weight.integers)
    same = [name for name, integers in left.items() if integers == own and (name in part.tables) == lookup]
    faults = [
        "" if same else f"{found.text} has integers of no layer that is left{nearest(weight.integers, part, left)}"
    ]
    for layer in same:
        wanted = part.layers[layer].weight_scale
        factors = reader.factors(wanted, weight.is_table, half)
        try:
            if lookup:
                scale = weight.scale * reader.row_factors(found.op, factors)
                if not torch.equal(scale, wanted):
                    raise Unreadable(f"the scales of the rows of {layer} differ")
            else:
                tail = reader.tail(found.op, factors, False, f"{layer}.bias" in part.float_parameters)
                check_tail(tail, None, part, layer, weight.scale)
        except Unreadable as error:
            faults.append(str(error))
            continue
        del left[layer]
        return
    raise Unreadable(faults[:2][-1])
