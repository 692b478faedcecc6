"""A sampler run: the table's recurrence around any network, whole or from one call to another.

FP32 targets, the calibrator and the integer simulation all run through here, so they differ in the network only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.sampler.table import SamplerTable

Network = Callable[[Tensor, int], Tensor]
OnStep = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True)
class State:
    """Where a segment starts: ``latents`` x[k], x[k-1]... and ``outputs`` f[k-1], f[k-2]..., newest first."""

    latents: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...] = ()

    @property
    def latent(self) -> Tensor:
        """x[k] (B, C, H, W)."""
        return self.latents[0]

    def after(self, table: SamplerTable, k: int, output: Tensor, noise: Tensor | None = None) -> State:
        """Where the sampler stands after call k: of the past only what the table looks back on is kept.

        Args:
            output: f[k], shape of x[k]. noise: (N, B, C, H, W) standard normal, indexed by call, or None.
        Raises:
            SamplerError: history or noise that call k needs is missing.
        """
        outputs = (output, *self.outputs)
        following = table.advance(k, self.latents, outputs, None if noise is None else noise[k])
        latents = (following, *self.latents)
        return State(latents[: len(table.a[0])], outputs[: len(table.b[0])])


def rollout(
    table: SamplerTable,
    network: Network,
    start: Tensor,
    *,
    noise: Tensor | None = None,
    on_step: OnStep | None = None,
    first: int = 0,
    last: int | None = None,
    past_latents: Sequence[Tensor] = (),
    past_outputs: Sequence[Tensor] = (),
) -> Tensor:
    """Latents x[first], ..., x[last]: (last - first + 1, B, C, H, W), in the dtype of ``start``, index 0 is ``start``.

    Gradients are kept if the caller has them on.

    Args:
        network: (x[k], k) -> f[k], both (B, C, H, W); it scales x[k] by ``table.input_scale[k]`` itself, as ``Denoiser`` does,
            and f[k] is after guidance.
        start: x[first], (B, C, H, W); for first = 0 noise times ``table.init_noise_sigma``.
        noise: (N, B, C, H, W) standard normal, indexed by call; only needed if the table is stochastic.
        on_step: called as (k, x[k], f[k]) after the network's call k.
        first, last: run calls first..last-1; last = None is N.
        past_latents, past_outputs: x[first-1], x[first-2], ... and f[first-1], ..., newest first; only needed
            where first > 0 and the sampler looks back.
    Raises:
        SamplerError: the range is not within 0..N, noise or history is missing, or a shape does not fit.
    """
    last = table.calls if last is None else last
    if not 0 <= first <= last <= table.calls:
        raise SamplerError(f"rollout must be within calls 0-{table.calls}, got {first}-{last}; correct first and last")
    if noise is not None and noise.shape != (table.calls, *start.shape):
        raise SamplerError(
            f"step noise must have shape {(table.calls, *start.shape)}, got {tuple(noise.shape)}; "
            "draw it for every network call and sample"
        )
    state = State((start, *past_latents), tuple(past_outputs))
    run = [start]
    for k in range(first, last):
        x = state.latent
        f = network(x, k)
        if f.shape != x.shape:
            raise SamplerError(
                f"network output must have the latent's shape {tuple(x.shape)}, got {tuple(f.shape)} "
                f"at call {k}; drop extra channels such as a learned variance"
            )
        if on_step is not None:
            on_step(k, x, f)
        state = state.after(table, k, f, noise)
        run.append(state.latent)
    return torch.stack(run)
