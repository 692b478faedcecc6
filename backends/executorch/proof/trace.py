"""What stands between the data and an integer layer of the sentinel form, found by executing it on marked ends of ranges.

Wrong wiring would be silent otherwise: every layer would still run, with another layer's scale or with one of its data's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dq_toolchain.backends.executorch.proof.products import fail
from dq_toolchain.backends.executorch.proof.pte_file import Graph, Node

Array = npt.NDArray[np.float64]

MARK = 1e30
"""Of the first site; that of site i is i + 1 times as large. Beyond any end of a range, and within what the lowering plants."""

_OPERATIONS: Mapping[str, Callable[..., Array]] = {
    "StaticTranspose": lambda fields, x: x.transpose(fields["perm"]),
    "StaticReshape": lambda fields, x: x.reshape([size or -1 for size in fields["new_shape"]]),
    "StaticSlice": lambda fields, x: x[
        tuple(slice(at, at + size) for at, size in zip(fields["offsets"], fields["sizes"], strict=True))
    ],
    "Copy": lambda _, x: x,
    "GlobalAvgPooling2d": lambda _, x: x.mean((1, 2), keepdims=True),
    "Concatenate2": lambda fields, x, y: np.concatenate([x, y], fields["axis"]),
    "Maximum": lambda _, x, y: np.maximum(x, y),
    "Minimum": lambda _, x, y: np.minimum(x, y),
}
_BEHIND_CONCATENATION = {
    "StaticTranspose": "input_id",
    "Copy": "input_id",
    "Maximum": "input1_id",
    "Minimum": "input1_id",
}
_INPUTS = ("input_id", "input1_id", "input2_id")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The input of a layer: clamped to the ends of ``site``, values planted behind the last channel of the data.

    ``high``: (..., planted channels) bool, in the order in which XNNPACK reads the input. True: a planted value becomes
    the high end; False: the low end.
    """

    site: int
    high: npt.NDArray[np.bool_]


def entry_of(graph: Graph, node: Node, ranges: Collection[int], sites: int) -> Entry:
    """How the data that ``node`` reads get their range.

    Args:
        ranges: values that hold the ends of all sites, lo and hi in turn.
    Raises:
        BackendError: the data are not clamped by one pair of ends and nothing else, or a planted value is none of them.
    """
    try:
        convert = graph.producer[node.fields["input1_id"]]
        if convert.kind != "Convert":
            raise ValueError(f"{convert.kind} where Convert was expected")
        marks: Array = MARK * np.arange(1, sites + 1, dtype=np.float64)
        row = np.stack([-marks, marks], axis=-1)
        known: dict[int, Array] = {value: row.reshape(graph.values[value].dims) for value in ranges}
        joined = _concatenation(graph, convert.fields["input_id"])
        planted = _computed(graph, joined.fields["input2_id"], known)
        known[joined.fields["input1_id"]] = _extremes(planted.shape, joined.fields["axis"])
        return _entry(_computed(graph, convert.fields["input_id"], known), marks)
    except (KeyError, ValueError, IndexError) as error:
        raise fail(f"the input of a {node.kind} cannot be traced to the ranges ({error})") from error


def _concatenation(graph: Graph, value: int) -> Node:
    node = graph.producer[value]
    while node.kind != "Concatenate2":
        if node.kind not in _BEHIND_CONCATENATION:
            raise ValueError(f"{node.kind} where data and planted values were expected")
        node = graph.producer[node.fields[_BEHIND_CONCATENATION[node.kind]]]
    return node


def _extremes(shape: tuple[int, ...], axis: int) -> Array:
    """Two channels that stand for any data: the smallest numbers and the largest."""
    ends = [np.full((*shape[:axis], 1, *shape[axis + 1 :]), end) for end in (-np.inf, np.inf)]
    return np.concatenate(ends, axis)


def _computed(graph: Graph, value: int, known: Mapping[int, Array]) -> Array:
    """A value as XNNPACK computes it from ``known`` ones and from constants."""
    if value in known:
        return known[value]
    node = graph.producer.get(value)
    if node is None:
        constant = graph.values[value]
        if constant.dtype != "fp32" or not constant.data:
            raise ValueError("it depends on something other than the ranges and planted values")
        return np.frombuffer(constant.data, np.float32).reshape(constant.dims).astype(np.float64)
    if node.kind not in _OPERATIONS:
        raise ValueError(f"it depends on the result of a {node.kind}")
    inputs = (_computed(graph, node.fields[name], known) for name in _INPUTS if name in node.fields)
    return _OPERATIONS[node.kind](node.fields, *inputs)


def _entry(found: Array, marks: Array) -> Entry:
    """Of the two extremes of the data and the planted channels behind them, clamped."""
    low, high, planted = found[..., 0], found[..., 1], found[..., 2:]
    site = int(np.searchsorted(marks, high.flat[0]))
    end: Any = marks[site] if site < len(marks) else np.nan
    if not ((low == -end) & (high == end)).all():
        raise ValueError("it is not clamped to both ends of one site")
    if not (np.abs(planted) == end).all():
        raise ValueError("a planted value is no end of the range")
    return Entry(site=site, high=planted > 0)
