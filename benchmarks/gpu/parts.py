"""The parts of the report in order of importance: what each asks, and its share of the time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """``package``.``name``.run(record, plan) does it. ``share``: of the time, in seconds of nine minutes."""

    name: str
    title: str
    share: float
    package: str = "benchmarks.gpu"

    @property
    def module(self) -> str:
        return f"{self.package}.{self.name}"


PARTS = (
    Part("environment", "The machine", 15),
    Part("checks", "Tests marked gpu", 90),
    Part("embedded", "Embedded model, default calibration", 75),
    Part("iterations", "Stable Diffusion 1.5's size: rollouts, ranges, iterations", 120),
    Part("plain", "The same network with PyTorch's own fake quantization", 35),
    Part("graphs", "Embedded model: passes replayed from CUDA graphs", 20),
    Part("quick", "Stable Diffusion 1.5's size: a whole calibration, --effort quick", 120),
    Part("flux", "A transformer block of FLUX's size", 30),
    Part("cells", "CIFAR-10, 100 steps: cells of the long comparison", 35),
)


def limits(shares: list[float], left: float) -> float:
    """Seconds for the first of the parts that are left: its share of them. What it does not use, all later ones get."""
    return left * shares[0] / sum(shares)


def chosen(names: str | None) -> tuple[Part, ...]:
    """Parts by their names, joined by commas, in the order of importance; None is all of them. Raises ValueError."""
    if names is None:
        return PARTS
    wanted = names.split(",")
    known = [part.name for part in PARTS]
    unknown = next((name for name in wanted if name not in known), None)
    if unknown is not None:
        raise ValueError(f"--parts: got {unknown!r}, allowed are {', '.join(known)}")
    return tuple(part for part in PARTS if part.name in wanted)
