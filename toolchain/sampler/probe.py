"""Reads the sampler table out of a diffusers scheduler by running it on unit vectors; no formula is repeated here.

The first thing a calibration does: config -> load_scheduler -> probe -> SamplerTable, confirmed on random values.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.sampler.diffusers_scheduler import MEMORY, Suspects, errors_of, suspects_in
from dq_toolchain.toolchain.sampler.table import Row, SamplerTable

MAX_HISTORY = 8  # the most latents, and the most outputs, that a device is asked to keep
TOLERANCE = 1e-5  # relative error of one step; schedulers compute partly in float32
NEGLIGIBLE = 1e-9  # relative to a row's largest coefficient; probing is done in float64
DRAWS = "randn_tensor"  # by this name diffusers' schedulers know the function that draws their noise

CLIPPING: Suspects = {"clip_sample": (True,), "thresholding": (True,), "clip_denoised": (True,)}
NOISE: Suspects = {"stochastic_sampling": (True,), "algorithm_type": ("sde-dpmsolver", "sde-dpmsolver++")}
INFINITE: Suspects = {"rescale_betas_zero_snr": (True,), "lower_order_final": (False,), "solver_type": ("bh1",)}


def probe(
    scheduler: Any, steps: int, *, eta: float = 0.0, timesteps: Mapping[str, Any] | None = None, first: int = 0
) -> SamplerTable:
    """The table of a diffusers scheduler for a number of steps; the scheduler itself is left untouched.

    Args:
        scheduler: with ``set_timesteps``, ``step`` and ``config``.
        steps: 1..num_train_timesteps; network calls can be one more (PNDM) or about twice as many (Heun).
        eta: 0..1, share of the DDPM noise, for schedulers whose ``step`` has it; the noise is an input of the table.
        timesteps: what the pipeline gives to ``set_timesteps`` beside their number: ``mu`` (``use_dynamic_shifting``), or the noise
            levels ``sigmas`` in the place of the number.
        first: network call that the sampler begins with, without a history; the table is of this call and those after it.
    Raises:
        SamplerError: not a scheduler, bad steps or eta, not linear (clip_sample, thresholding), noise that cannot
            be given from outside (ancestral samplers, DDPM), or a memory of more than MAX_HISTORY calls.
    """
    _check_request(scheduler, steps, eta)
    name, config = type(scheduler).__name__, scheduler.config
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        run = Run(scheduler, steps, eta, timesteps or {}, first)
        rows, input_scale = _impulse_response(run)
        if not rows.isfinite().all():
            raise SamplerError(
                f"{name} divides by zero at {steps} steps{suspects_in(config, INFINITE)}; "
                "change --steps, or the option in a copy of scheduler_config.json, and name its folder with "
                "--scheduler"
            )
        torch.manual_seed(1)
        if not torch.equal(rows, _impulse_response(Run(scheduler, steps, eta, timesteps or {}, first))[0]):
            raise SamplerError(
                f"{name} draws noise that cannot be given from outside{suspects_in(config, NOISE)}; "
                "name the folder of a scheduler without noise, or of a DDIMScheduler, with --scheduler"
            )
        recurrence = _shortest_recurrence(rows)
        if recurrence is None:
            raise SamplerError(
                f"{name} looks back over more than {MAX_HISTORY} calls{suspects_in(config, MEMORY)}; "
                "change the option in a copy of scheduler_config.json, or take another scheduler, and name "
                "its folder with --scheduler"
            )
        latent, output, noise = recurrence.unbind(1)
        table = SamplerTable(
            scheduler=name,
            prediction_type=config.get("prediction_type", _usual_prediction(name)),
            timesteps=tuple(float(t) for t in run.timesteps),
            input_scale=tuple(input_scale.tolist()),
            a=_by_age(latent),
            b=_by_age(output),
            c=tuple(noise.diagonal().tolist()),
            init_noise_sigma=run.init_noise_sigma,
        )
        call = first_disagreement(table, Run(scheduler, steps, eta, timesteps or {}, first))
        if call is not None:
            raise SamplerError(
                f"{name} is not linear in latent and network output, first seen at call {call}"
                f"{suspects_in(config, CLIPPING)}; {_without_clipping(config)}"
            )
    return table


def _usual_prediction(name: str) -> str | None:
    """What networks of this scheduler predict, where its config does not say."""
    if name.startswith("FlowMatch"):
        return "flow_prediction"
    return "consistency" if name == "CMStochasticIterativeScheduler" else None


def _without_clipping(config: Mapping[str, Any]) -> str:
    clips = [option for option, values in CLIPPING.items() if config.get(option) in values]
    other = "name the folder of another scheduler with --scheduler"
    if not clips:
        return other
    return (
        f"scheduler/scheduler_config.json sets it; --no-clip sets {' and '.join(clips)} to false, so that predicted images are "
        f"not limited while sampling; or {other}"
    )


def _check_request(scheduler: Any, steps: int, eta: float) -> None:
    config = getattr(scheduler, "config", None)
    methods = (getattr(scheduler, method, None) for method in ("set_timesteps", "step"))
    if not isinstance(config, Mapping) or not all(map(callable, methods)):
        name = type(scheduler).__name__
        raise SamplerError(
            f"a sampler table holds schedulers that go from latent to latent by one step, got {name}; networks made "
            "for it are not supported, for others name the folder of another scheduler with --scheduler"
        )
    most = config.get("num_train_timesteps", 1000)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= most:
        raise SamplerError(f"steps must be an integer in 1-{most} (num_train_timesteps), got {steps!r}; set --steps")
    if not 0 <= eta <= 1:
        raise SamplerError(f"eta must be in 0-1 (0 is deterministic, 1 is DDPM noise), got {eta}; correct it")
    if eta and "eta" not in inspect.signature(scheduler.step).parameters:
        raise SamplerError(
            f"{type(scheduler).__name__} has no eta, got {eta}; set it to 0, or name the folder of a "
            "DDIMScheduler with --scheduler"
        )


class Run:
    """A private copy of a scheduler during one run; ``scaled`` and ``step`` are called once per k, in this order."""

    def __init__(self, scheduler: Any, steps: int, eta: float, timesteps: Mapping[str, Any], first: int = 0) -> None:
        self._name, self._config = type(scheduler).__name__, scheduler.config
        parameters = inspect.signature(scheduler.step).parameters
        self._options = {"eta": eta} if "eta" in parameters else {}
        self._takes_noise = "variance_noise" in parameters
        self._module = sys.modules[type(scheduler).__module__]
        with errors_of(self._name, self._config):
            self._scheduler = copy.deepcopy(scheduler)
            self._scheduler.set_timesteps(None if "sigmas" in timesteps else steps, **timesteps)
            self.timesteps: Tensor = self._scheduler.timesteps[first:]
            if first and hasattr(self._scheduler, "set_begin_index"):
                self._scheduler.set_begin_index(first)
            self.init_noise_sigma = float(getattr(self._scheduler, "init_noise_sigma", 1.0))  # flow matching has none

    def scaled(self, k: int, x: Tensor) -> Tensor:
        scale = getattr(self._scheduler, "scale_model_input", None)  # flow matching has none
        with errors_of(self._name, self._config):
            return x if scale is None else scale(x, self.timesteps[k])

    def step(self, k: int, x: Tensor, f: Tensor, noise: Tensor) -> Tensor:
        given = {"variance_noise": noise} if self._takes_noise else {}
        with errors_of(self._name, self._config), self._drawing(noise):
            result = self._scheduler.step(f, self.timesteps[k], x, return_dict=False, **self._options, **given)
            following: Tensor = result[0].view_as(x)  # one that returns anything but the next latent fails here
        return following

    def _drawing(self, noise: Tensor) -> AbstractContextManager[object]:
        """Inside, a scheduler that draws its own noise (LCM, ancestral samplers, DDPM) draws this."""
        if not hasattr(self._module, DRAWS):
            return nullcontext()
        return mock.patch.object(self._module, DRAWS, return_value=noise)


def _impulse_response(run: Run) -> tuple[Tensor, Tensor]:
    """(N, 3, N): coefficients of x[k+1] on the x, f and noise of every call; (N,): input scales. float64.

    Every call is handed unit vectors that no other call has, the latent included, in place of what the call before
    returned. What comes back is then the row itself, and what the scheduler remembers of earlier calls stands at their
    coordinates; nothing has to be solved for.
    """
    calls = len(run.timesteps)
    unit = torch.eye(3 * calls, dtype=torch.float64).view(3, calls, 1, 3 * calls, 1, 1)  # coordinates are channels
    rows, scales = [], []
    for k in range(calls):
        scales.append(run.scaled(k, unit[0, k]).sum())
        rows.append(run.step(k, *unit[:, k]).view(3, calls))
    return torch.stack(rows), torch.stack(scales)


def _shortest_recurrence(rows: Tensor) -> Tensor | None:
    """The rows (N, 3, N) rewritten to look back over the fewest latents; None if that is too many."""
    for latent_history in range(MAX_HISTORY):
        short = [row for k in range(len(rows)) if (row := _rewrite(rows, k, latent_history)) is not None]
        if len(short) == len(rows):
            return torch.stack(short)
    return None


def _rewrite(rows: Tensor, k: int, latent_history: int) -> Tensor | None:
    """Row k without the coordinates older than allowed, or None where that cannot be.

    A scheduler that keeps a running sum (the corrected latent of UniPC) shows its whole past in every row. The row
    before says what that sum was: row k-1 minus x[k] is zero on any run, so a multiple of it takes the old part away.
    """
    row = rows[k]
    age = k - torch.arange(len(rows))
    old = torch.stack([age > latent_history, age >= MAX_HISTORY, age > 0])
    if k and row[old].any():
        zero = rows[k - 1].clone()
        zero[0, k] -= 1
        row = row - (row[old] @ zero[old]) / (zero[old] @ zero[old]).clamp_min(torch.finfo(row.dtype).tiny) * zero
    row = row.where(row.abs() > NEGLIGIBLE * rows[k].abs().max(), 0.0)
    return None if row[old].any() else row


def _by_age(coefficients: Tensor) -> tuple[Row, ...]:
    """(N, N) by call -> N rows by age, newest first, as long as the longest needs."""
    rows = [coefficients[k, : k + 1].flip(0).tolist() for k in range(len(coefficients))]
    history = max((age + 1 for row in rows for age, value in enumerate(row) if value), default=1)
    return tuple(tuple((row + [0.0] * history)[:history]) for row in rows)


def first_disagreement(table: SamplerTable, run: Run) -> int | None:
    """The first call at which table and scheduler differ on a run of a random network, None if there is none.

    Three samples of very different size, because an option that clips shows only above its limit.
    """
    size = torch.tensor([1.0, 1e2, 1e4], dtype=torch.float64).view(3, 1, 1, 1)
    latents = [size * table.init_noise_sigma * torch.randn(3, 4, 4, 4, dtype=torch.float64)]
    outputs: list[Tensor] = []
    mix = torch.randn(4, 4, dtype=torch.float64)
    for k in range(table.calls):
        x, noise = latents[0], size * torch.randn_like(latents[0])
        given = run.scaled(k, x)
        outputs.insert(0, size * torch.einsum("dc,bchw->bdhw", mix, given / size).tanh())
        following = run.step(k, x, outputs[0], noise)
        if differ(table.input_scale[k] * x, given) or differ(table.advance(k, latents, outputs, noise), following):
            return k
        latents.insert(0, following)
    return None


def differ(ours: Tensor, theirs: Tensor) -> bool:
    error = (ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)
    return not bool((error <= TOLERANCE).all())  # NaN differs
