"""The choices of bits: each is the best of its size, as trying all of them shows."""

from __future__ import annotations

import itertools
import random

from dq_toolchain.calibrate.bits.allocation import Layer, allocations, bits_of


def _layers(seed: int, equal: bool) -> list[Layer]:
    generator = random.Random(seed)
    layers = []
    for index in range(5):
        first = generator.uniform(1, 100)
        errors = {3: first, 4: first * generator.uniform(0.2, 0.9), 8: first * generator.uniform(0.0, 0.15)}
        layers.append(Layer(f"layer{index}", 10 if equal else generator.randint(1, 40), errors))
    return layers


def _error(layers: list[Layer], choice: dict[str, int]) -> float:
    return sum(layer.errors[choice[layer.name]] for layer in layers)


def test_no_choice_of_the_same_size_or_less_is_better() -> None:
    for seed in range(20):
        layers = _layers(seed, equal=seed % 2 == 0)
        weights = {layer.name: layer.weights for layer in layers}
        every = [dict(zip(weights, bits, strict=True)) for bits in itertools.product((3, 4, 8), repeat=len(layers))]
        for choice in allocations(layers):
            size = bits_of(weights, choice)
            best = min(_error(layers, other) for other in every if bits_of(weights, other) <= size)
            assert _error(layers, choice) <= best * (1 + 1e-9)


def test_choices_grow_from_the_smallest_one_layer_at_a_time() -> None:
    layers = _layers(1, equal=False)
    weights = {layer.name: layer.weights for layer in layers}
    found = allocations(layers)
    assert set(found[0].values()) == {3}
    for before, after in itertools.pairwise(found):
        (changed,) = [name for name in before if before[name] != after[name]]
        assert after[changed] > before[changed]
        assert bits_of(weights, after) > bits_of(weights, before)
        assert _error(layers, after) < _error(layers, before)


def test_bits_that_gain_nothing_are_not_spent() -> None:
    useless = Layer("useless", 10, {4: 1.0, 8: 1.0})
    assert allocations([useless, Layer("useful", 10, {4: 1.0, 8: 0.5})]) == [
        {"useless": 4, "useful": 4},
        {"useless": 4, "useful": 8},
    ]
