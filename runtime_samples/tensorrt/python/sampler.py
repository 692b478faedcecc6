"""The run: every seed's own rollout, then the network's answers at the simulation's latents."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from bundle import Bundle
from metrics import median
from reference import Reference
from safetensors_file import Array, Floats


class Network(Protocol):
    """What executes the methods of a bundle.

    Attributes:
        name, version: of the runtime. compute_unit: what runs. versions: of libraries, by name.
        load_ms: time of all loading so far.
    """

    name: str
    version: str
    compute_unit: str
    versions: Mapping[str, str]
    load_ms: float

    def warm_up(self, method: str, inputs: Mapping[str, Array]) -> None:
        """Load the method if it is not, and do once whatever only the first execution does."""

    def execute(self, method: str, inputs: Mapping[str, Array]) -> Floats:
        """The output (1, C, ...) for inputs by name, batch 1. Raises Refused: the runtime cannot execute it."""

    def close(self) -> None:
        """Give back what it holds on the device."""


@dataclass(frozen=True)
class Samples:
    """Latents (N+1, S, C, ...) and outputs_at_simulation (N, S, C, ...) or None, float32; step_ms: N medians."""

    latents: Floats
    outputs_at_simulation: Floats | None
    step_ms: list[float]


class Guided:
    """network(x, k) of one seed: one execution, or two and their combination where there is guidance, and the correction.

    Attributes:
        times: milliseconds of every call so far, by step.
    """

    def __init__(self, bundle: Bundle, network: Network) -> None:
        self.bundle, self.network, self.correction = bundle, network, bundle.table.correction
        self.times: list[list[float]] = [[] for _ in range(bundle.steps)]

    def __call__(self, x: Floats, k: int, cond: Mapping[str, Array], uncond: Mapping[str, Array]) -> Floats:
        """(1, C, ...) float32, already scaled by the table -> (1, C, ...) float32."""
        start = time.perf_counter()
        method = self.bundle.method_of_step[k]
        out = self.network.execute(method, self.inputs(x, k, cond))
        if self.bundle.guidance != 1:
            other = self.network.execute(method, self.inputs(x, k, uncond))
            out = other + self.bundle.guidance * (out - other)
        if self.correction is not None:
            out = self.correction.after(out, k)
        self.times[k].append((time.perf_counter() - start) * 1e3)
        return out

    def inputs(self, x: Floats, k: int, conditioning: Mapping[str, Array]) -> dict[str, Array]:
        """Inputs of step k by name; x as for a call."""
        if self.correction is not None:
            x = self.correction.before(x, k)
        given: dict[str, Array] = {"sample": x, "timestep": self.bundle.table.timesteps[k : k + 1], **conditioning}
        if self.bundle.step_vectors is not None:
            given["step_vectors"] = self.bundle.step_vectors[k : k + 1]
        if self.bundle.ranges is not None:
            group = self.bundle.group_of_step[k]
            given["ranges"] = self.bundle.ranges[group : group + 1]
        return {port.name: np.ascontiguousarray(given[port.name]).reshape(port.shape) for port in self.bundle.inputs}


def advance(bundle: Bundle, k: int, latents: list[Floats], outputs: list[Floats], noise: Floats | None) -> Floats:
    """x[k+1], summed in the order of the table; histories are newest first, each (1, C, ...)."""
    table = bundle.table
    terms = [*zip(table.a[k], latents, strict=False), *zip(table.b[k], outputs, strict=False)]
    if noise is not None:
        terms.append((table.c[k], noise))
    total = np.zeros_like(latents[0])
    for coefficient, tensor in terms:
        if coefficient != 0:
            total = total + coefficient * tensor
    return total


def sample(
    bundle: Bundle, reference: Reference, network: Network, teacher_forced: bool, progress: Callable[[int, int], None]
) -> Samples:
    """Run every seed of ``reference``.

    Args:
        progress: called with the seeds done and in all.
    Raises:
        Refused: the runtime cannot execute a method.
    """
    steps, seeds, shape = bundle.steps, reference.seeds, bundle.output.shape[1:]
    latents = np.empty((steps + 1, seeds, *shape), np.float32)
    forced = np.empty((steps, seeds, *shape), np.float32) if teacher_forced else None
    guided, scale = Guided(bundle, network), bundle.table.input_scale
    with np.errstate(all="ignore"):  # a network that overflows is a finding, and null in the report
        warm_up(bundle, reference, guided)
        for seed in range(seeds):
            only = slice(seed, seed + 1)
            cond, uncond = (
                {name: tensor[only] for name, tensor in tensors.items()}
                for tensors in (reference.cond, reference.uncond)
            )
            past, outputs = [np.array(reference.start[only])], list[Floats]()
            for k in range(steps):
                outputs.insert(0, guided(scale[k] * past[0], k, cond, uncond))
                noise = None if reference.step_noise is None else reference.step_noise[k, only]
                past.insert(0, advance(bundle, k, past, outputs, noise))
            latents[:, only] = past[::-1]
            for k in range(steps if forced is not None else 0):
                assert forced is not None
                forced[k, only] = guided(scale[k] * reference.simulation_latents[k, only], k, cond, uncond)
            progress(seed + 1, seeds)
    return Samples(latents, forced, [median(np.array(times)) for times in guided.times])


def warm_up(bundle: Bundle, reference: Reference, guided: Guided) -> None:
    """One execution per method, not timed: the first one allocates."""
    cond = {name: tensor[:1] for name, tensor in reference.cond.items()}
    for method in bundle.methods:
        k = bundle.method_of_step.index(method)
        guided.network.warm_up(method, guided.inputs(bundle.table.input_scale[k] * reference.start[:1], k, cond))
