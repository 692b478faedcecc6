"""Which layers get more bits: the trade of size against error, layer by layer.

Errors of layers are taken to add up. Then a layer's useful widths are the corners of the lower convex hull of its
(bits, error), and going from corner to corner by what an error falls per bit, the largest first, visits exactly the
choices that no other choice of their size beats (Shoham and Gersho 1988, up to one layer's step in size).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Errors = Mapping[int, float]
"""bits -> predicted squared error of a layer."""


@dataclass(frozen=True)
class Layer:
    """A layer whose width is to be chosen."""

    name: str
    weights: int
    errors: Errors


@dataclass(frozen=True)
class Step:
    """Raise a layer to ``bits``: its error falls by ``gain`` per bit spent."""

    layer: str
    gain: float
    bits: int


def allocations(layers: Sequence[Layer]) -> list[dict[str, int]]:
    """Layer -> bits, from the smallest choice to the one that nothing improves; each raises one layer of the one before."""
    now = {layer.name: min(layer.errors) for layer in layers}
    found = [dict(now)]
    steps = [step for layer in layers for step in _steps(layer)]
    for step in sorted(steps, key=lambda step: -step.gain):  # stable: equal gains in the layers' order
        now[step.layer] = step.bits
        found.append(dict(now))
    return found


def _steps(layer: Layer) -> Iterator[Step]:
    """From corner to corner of the hull, as long as the error falls; gains fall from one to the next."""
    width = min(layer.errors)
    while True:
        steps = [Step(layer.name, _gain(layer, width, high), high) for high in layer.errors if high > width]
        best = max(steps, key=lambda step: step.gain, default=None)
        if best is None or best.gain <= 0:
            return
        yield best
        width = best.bits


def _gain(layer: Layer, low: int, high: int) -> float:
    return (layer.errors[low] - layer.errors[high]) / (layer.weights * (high - low))


def bits_of(weights: Mapping[str, int], allocation: Mapping[str, int]) -> int:
    """Bits of all weights."""
    return sum(count * allocation[name] for name, count in weights.items())
