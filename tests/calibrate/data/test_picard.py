"""Rollouts of several steps at once are those of one step after the other, within the tolerance, in fewer calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor, nn

from dq_toolchain.calibrate.data.picard import TOLERANCE, check_rows_apart, outputs_of_steps, picard_rollout
from dq_toolchain.calibrate.data.rollouts import parallel_rollouts, rollouts_of
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.denoiser import Denoiser, outputs_at
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable
from tests.calibrate.conftest import tiny_recipe

CALLS = 20


@dataclass(eq=False)
class Smooth(nn.Module):
    """The network of white images, bent a little: it depends on latent, time and conditioning, and counts its calls."""

    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor, time: Tensor, shift: Tensor) -> Tensor:
        self.rows.append(len(x))
        gain = (0.3 + 0.6 * time / 1000).view(-1, 1, 1, 1)
        return gain * x + 0.1 * torch.tanh(2 * x) + 0.05 * shift.view(-1, 1, 1, 1)


def case(table: SamplerTable, guidance: float = 1.0, count: int = 3) -> tuple[Smooth, Denoiser, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(count, 2, 4, 4, generator=generator) * table.init_noise_sigma
    noise = torch.randn(table.calls, *start.shape, generator=generator) if table.stochastic else None
    rows = {"shift": torch.linspace(-1, 1, count)}
    conditioning = Conditioning(rows, {} if guidance == 1.0 else {"shift": torch.zeros(count)})
    network = Smooth()
    return network, Denoiser(network, table, conditioning, guidance), start, noise


TABLES: list[Any] = [
    pytest.param(lambda: probe(DDIMScheduler(clip_sample=False), CALLS), id="ddim"),
    pytest.param(lambda: probe(DDIMScheduler(clip_sample=False), CALLS, eta=0.7), id="noise"),
    pytest.param(lambda: probe(DPMSolverMultistepScheduler(), CALLS), id="looks back"),
    pytest.param(lambda: probe(EulerDiscreteScheduler(), CALLS), id="euler"),
    pytest.param(lambda: probe(FlowMatchEulerDiscreteScheduler(), CALLS), id="flow"),
]


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).flatten(2).norm(dim=2) / b.flatten(2).norm(dim=2)).max())


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("make", TABLES)
def test_a_rollout_of_many_steps_at_once_is_the_sequential_one(make: Any, guidance: float) -> None:
    table = make()
    network, denoiser, start, noise = case(table, guidance)
    done = list[int]()
    latents, outputs = picard_rollout(denoiser, start, window=8, noise=noise, advance=lambda n=1: done.append(n))
    calls = len(network.rows)
    assert calls < CALLS
    assert sum(done) == CALLS
    assert len(done) == calls
    sequential = rollout(table, denoiser, start, noise=noise)
    assert relative(latents, sequential) < 20 * TOLERANCE
    torch.testing.assert_close(outputs, outputs_at(denoiser, latents), rtol=1e-4, atol=1e-5)  # at the recorded latents


@pytest.mark.parametrize("make", TABLES)
def test_every_latent_is_within_the_tolerance_of_what_the_outputs_make(make: Any) -> None:
    table = make()
    _, denoiser, start, noise = case(table)
    latents, outputs = picard_rollout(denoiser, start, window=8, noise=noise)
    made = rollout(table, lambda _x, k: outputs[k], start, noise=noise)
    assert relative(latents, made) <= TOLERANCE + 1e-6
    assert torch.equal(latents[-1], made[-1])


@pytest.mark.parametrize("window", [1, 3, 50])
def test_without_tolerance_only_rounding_is_left_and_no_step_is_done_twice(window: int) -> None:
    table = probe(DDIMScheduler(clip_sample=False), CALLS)
    network, denoiser, start, _ = case(table)
    latents, _ = picard_rollout(denoiser, start, window=window, tolerance=0.0)
    assert len(network.rows) <= CALLS
    assert max(network.rows) == min(window, CALLS) * len(start)
    torch.testing.assert_close(latents, rollout(table, denoiser, start), rtol=1e-4, atol=1e-5)


def test_steps_in_one_batch_are_the_steps_one_by_one() -> None:
    table = probe(EulerDiscreteScheduler(), 6)
    _, denoiser, start, _ = case(table, guidance=2.0)
    x = torch.stack([start, 0.5 * start, 0.1 * start])
    wanted = torch.stack([denoiser(x[i], 2 + i) for i in range(3)])
    torch.testing.assert_close(outputs_of_steps(denoiser, x, 2), wanted)


class OneTime(nn.Module):
    """Looks at the timestep of the first row only, as a module of one's own may."""

    def forward(self, x: Tensor, time: Tensor, shift: Tensor) -> Tensor:
        return x * time[0] / 1000


def test_a_network_that_has_one_timestep_per_batch_is_refused() -> None:
    table = probe(DDIMScheduler(clip_sample=False), CALLS)
    _, denoiser, start, _ = case(table)
    check_rows_apart(replace(denoiser, conditioning=denoiser.conditioning.select(slice(0, 1))), start[:1])
    samples = Samples(start, denoiser.conditioning, None)
    with pytest.raises(CalibrationError, match=r"parallel_steps.*leave parallel_steps at 1"):
        parallel_rollouts(OneTime(), table, samples, guidance=1.0, batch=8, window=4, device=torch.device("cpu"))


def test_batches_hold_no_more_rows_than_they_may() -> None:
    table = probe(DDIMScheduler(clip_sample=False), CALLS)
    network, denoiser, start, _ = case(table, count=5)
    samples = Samples(start, denoiser.conditioning, None)
    given: dict[str, Any] = {"guidance": 1.0, "device": torch.device("cpu")}
    for batch, window in ((12, 4), (3, 8), (1, 8)):
        network.rows.clear()
        found = parallel_rollouts(network, table, samples, batch=batch, window=window, **given)
        assert max(network.rows) <= batch
        plain = rollouts_of(network, table, samples, batch=5, **given)
        assert found.latents.shape == plain.latents.shape
        assert found.outputs.shape == plain.outputs.shape
        assert relative(found.latents, plain.latents) < 20 * TOLERANCE


@pytest.mark.parametrize("method", ["accuquant", "ptq4dm"])
def test_a_calibration_with_parallel_steps_finds_what_one_without_finds(
    method: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Ranges are those of the same latents: minmax, where nothing but rounding tells the two apart."""
    found = []
    for steps in (1, 4):
        recipe = tiny_recipe(
            tiny_model,
            tmp_path,
            run={"parallel_steps": steps},
            calibrate={"method": method, "ranges": "minmax", "warmup": 0, "iterations": 0, "settling": 0,
                       "group_iterations": 0, "rounding": "nearest"},
        )  # fmt: skip
        found.append(calibrated(recipe, Reporter(quiet=True), tmp_path / f"work{steps}").artifact)
    assert found[0].table == found[1].table
    torch.testing.assert_close(found[0].scale, found[1].scale, rtol=5e-3, atol=1e-6)
