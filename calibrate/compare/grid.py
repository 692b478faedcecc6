"""The grid of a comparison: sampler steps x calibration seeds x bits x methods, one cell each.

Cells come in an order in which neighbours share what is costly: FP32 rollouts (steps, seed), then fits (bits, method).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.quant.qparams import ACTIVATION_BITS, ALLOWED_ACTIVATION_BITS, WEIGHT_BITS

T = TypeVar("T")
Bits = tuple[int, int]
"""Bits of weights, bits of activations."""

MOST_STEPS = 1000
PLACES = ("here", "ray")
"""Where cells are done: by this process, or by the machines of a Ray cluster."""


@dataclass(frozen=True)
class Cell:
    """One calibration and its evaluation.

    Attributes:
        sampler: short name of the scheduler, see ``sampler_name``. steps: denoising steps.
        method: a name, or several joined by ``+``.
        seed: seed of the calibration samples.
    """

    sampler: str
    steps: int
    weight_bits: int
    activation_bits: int
    method: str
    seed: int

    @property
    def setting(self) -> str:
        """What methods are compared within: ``ddim20-w4a8``."""
        return f"{self.sampler}{self.steps}-w{self.weight_bits}a{self.activation_bits}"

    @property
    def name(self) -> str:
        """Name of the cell's folder: ``ddim20-w4a8-accuquant-s0``."""
        return f"{self.setting}-{self.method}-s{self.seed}"

    @property
    def base(self) -> str:
        """The method that combinations start from: ``accuquant`` of ``accuquant+tac``."""
        return self.method.partition("+")[0]


def sampler_name(scheduler: str) -> str:
    """``ddim`` of diffusers' class name ``DDIMScheduler``."""
    return scheduler.removesuffix("Scheduler").removesuffix("Discrete").lower()


def expand(
    sampler: str, steps: Sequence[int], bits: Sequence[Bits], methods: Sequence[str], seeds: Sequence[int]
) -> tuple[Cell, ...]:
    """All cells: steps, seeds, bits in the order given, within them methods, each followed by its combinations."""
    bases = list(dict.fromkeys(method.partition("+")[0] for method in methods))
    ordered = sorted(methods, key=lambda m: (bases.index(m.partition("+")[0]), m.count("+")))
    return tuple(
        Cell(sampler, n, weights, activations, method, seed)
        for n in steps
        for seed in seeds
        for weights, activations in bits
        for method in ordered
    )


def parse_bits(text: str) -> list[Bits]:
    """``W8A8,W4A8`` -> [(8, 8), (4, 8)]. Raises RecipeError."""
    found = []
    for item in _items(text, "--bits"):
        match = re.fullmatch(r"[Ww](\d)[Aa](\d{1,2})", item)
        pair = (int(match[1]), int(match[2])) if match else None
        if pair is None or pair[0] not in WEIGHT_BITS or pair[1] not in ACTIVATION_BITS:
            raise RecipeError(
                f"--bits: got {item!r}, allowed are W with 2-8 and A with {ALLOWED_ACTIVATION_BITS} bits, such as "
                "W8A8,W4A8,W8A16"
            )
        found.append(pair)
    return _once(found, "--bits", text)


def parse_steps(text: str) -> list[int]:
    """``20,50`` -> [20, 50]. Raises RecipeError."""
    found = []
    for item in _items(text, "--steps"):
        if not re.fullmatch(r"\d{1,4}", item) or not 1 <= int(item) <= MOST_STEPS:
            raise RecipeError(f"--steps: got {item!r}, allowed are numbers 1-{MOST_STEPS}, such as 20,50")
        found.append(int(item))
    return _once(found, "--steps", text)


def parse_methods(text: str, known: Sequence[str]) -> list[str]:
    """``mse,accuquant+tac`` -> ["mse", "accuquant+tac"]; every part must be known. Raises RecipeError."""
    found = []
    for item in _items(text, "--methods"):
        parts = [part.strip() for part in item.split("+")]
        unknown = [part for part in parts if part not in known]
        if unknown or len(set(parts)) < len(parts):
            raise RecipeError(
                f"--methods: got {item!r}, allowed are {', '.join(known)}, each once, and combinations such as accuquant+tac"
            )
        found.append("+".join(parts))
    return _once(found, "--methods", text)


def parse_place(text: str) -> str:
    """One of ``PLACES``. Raises RecipeError."""
    if text not in PLACES:
        raise RecipeError(
            f"--on: got {text!r}, allowed are here (this process) and ray (the machines of a Ray cluster)"
        )
    return text


def _items(text: str, option: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise RecipeError(f"{option}: got {text!r}, which has an empty entry; separate entries by one comma")
    return items


def _once(found: list[T], option: str, text: str) -> list[T]:
    if len(set(found)) < len(found):
        raise RecipeError(f"{option}: got {text!r}, which names an entry twice; leave one out")
    return found
