"""The held-out rollouts of a bundle: start noise, conditioning, and what FP32 and the integer simulation did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from bundle import FIXED_INPUTS, Bundle
from errors import EXPORT_AGAIN, Refused
from safetensors_file import Array, Floats, read_tensors

FLOAT: np.dtype[Any] = np.dtype(np.float32)


@dataclass(frozen=True)
class Reference:
    """S seeds and N steps, each tensor float32 unless the program's input says int64.

    Attributes:
        start: (S, C, ...). cond, uncond: (S, ...) by input name; uncond is empty without guidance.
        step_noise: (N, S, C, ...), None if no step adds noise.
        fp32_latents, simulation_latents: (N+1, S, C, ...).
    """

    start: Floats
    cond: Mapping[str, Array]
    uncond: Mapping[str, Array]
    step_noise: Floats | None
    fp32_latents: Floats
    simulation_latents: Floats

    @property
    def seeds(self) -> int:
        return len(self.start)

    def first(self, seeds: int) -> Reference:
        """The first ``seeds`` seeds. Raises Refused: there are not so many."""
        if not 1 <= seeds <= self.seeds:
            raise Refused(f"--seeds must be 1-{self.seeds}, the held-out seeds of the bundle, got {seeds}; change it")
        cond, uncond = (
            {name: tensor[:seeds] for name, tensor in tensors.items()} for tensors in (self.cond, self.uncond)
        )
        noise = None if self.step_noise is None else self.step_noise[:, :seeds]
        return Reference(
            self.start[:seeds], cond, uncond, noise, self.fp32_latents[:, :seeds], self.simulation_latents[:, :seeds]
        )


def read_reference(bundle: Bundle) -> Reference:
    """Read what the run needs of reference.safetensors. Raises Refused: a tensor is missing, or of another shape or dtype."""
    path = bundle.folder / bundle.reference
    tensors = read_tensors(path)

    def take(name: str, shape: tuple[int, ...], dtype: np.dtype[Any] = FLOAT) -> Array:
        tensor = tensors.get(name)
        if tensor is None or tensor.shape != shape or tensor.dtype != dtype:
            got = "nothing" if tensor is None else f"{tensor.dtype} of shape {tensor.shape}"
            raise Refused(f"{path} must hold {name!r}, {dtype} of shape {shape}, got {got}; {EXPORT_AGAIN}")
        if tensor.dtype == FLOAT and not np.isfinite(tensor).all():
            raise Refused(f"{path}: {name!r} holds NaN or infinity; {EXPORT_AGAIN}")
        return tensor

    start = tensors.get("start")
    seeds = 0 if start is None or not start.ndim else len(start)
    if not seeds:
        raise Refused(f"{path} holds no seed; {EXPORT_AGAIN}")
    shape = (seeds, *bundle.output.shape[1:])
    given = [port for port in bundle.inputs if port.name not in FIXED_INPUTS]
    cond = {port.name: take(f"cond.{port.name}", (seeds, *port.shape[1:]), port.dtype) for port in given}
    uncond = {}
    if bundle.guidance != 1:
        uncond = {port.name: take(f"uncond.{port.name}", (seeds, *port.shape[1:]), port.dtype) for port in given}
    noise = take("step_noise", (bundle.steps, *shape)) if bundle.table.c.any() else None
    fp32, simulation = (take(name, (bundle.steps + 1, *shape)) for name in ("fp32_latents", "simulation_latents"))
    return Reference(take("start", shape), cond, uncond, noise, fp32, simulation)
