"""Where a sampler begins with a picture: the multiples of diffusers, a table of its own where it looks back, the right step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxImg2ImgPipeline, FluxPipeline
from scripts.published.encoders import POOLED

from dq_toolchain.toolchain.errors import RecipeError, SamplerError
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.diffusers_scheduler import load_scheduler
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.scheduler import sampler_starts, sampler_table
from dq_toolchain.toolchain.sampler.start_probe import MOST_STEPS, probe_starts
from dq_toolchain.toolchain.sampler.starts import Start, chosen_start, first_step, tail
from dq_toolchain.toolchain.sampler.table import SamplerTable
from tests import tiny_pipelines


def begun(name: str, steps: int = 5, **options: Any) -> tuple[SamplerTable, tuple[Start, ...]]:
    scheduler = load_scheduler({"_class_name": name, **options})
    table = probe(scheduler, steps)
    return table, probe_starts(scheduler, steps, table)


def test_ddim_begins_with_the_signal_of_the_step() -> None:
    """Ho et al. 2020, equation 4."""
    table, starts = begun("DDIMScheduler", clip_sample=False)
    kept = load_scheduler({"_class_name": "DDIMScheduler", "clip_sample": False}).alphas_cumprod.double()
    for start, timestep in zip(starts, table.timesteps, strict=True):
        assert start.signal**2 == pytest.approx(float(kept[int(timestep)]), rel=1e-6)
        assert start.signal**2 + start.noise**2 == pytest.approx(1)


def test_euler_begins_with_the_noise_level_of_the_step() -> None:
    scheduler = load_scheduler({"_class_name": "EulerDiscreteScheduler"})
    scheduler.set_timesteps(5)
    _, starts = begun("EulerDiscreteScheduler")
    assert [start.signal for start in starts] == [1.0] * 5
    assert [start.noise for start in starts] == pytest.approx(scheduler.sigmas[:5].tolist())


def test_heun_begins_with_every_other_call() -> None:
    table, starts = begun("HeunDiscreteScheduler")
    assert table.calls == 9
    assert [start.call for start in starts] == [0, 2, 4, 6, 8]
    assert all(start.table is None for start in starts)


def test_a_solver_that_looks_back_begins_without_a_history() -> None:
    """Its first step is of first order, as at the start of a whole run; the steps after it are those of the whole table."""
    table, starts = begun("DPMSolverMultistepScheduler", steps=8)
    own = starts[3].table
    assert tail(table, 3) is None
    assert own is not None
    assert own.timesteps == table.timesteps[3:]
    assert not any(own.b[0][1:])
    assert any(table.b[3][1:])
    for ours, whole in zip(own.b[2:], table.b[5:], strict=True):
        assert ours == pytest.approx(whole)
    assert starts[0].table is None


def test_the_rest_of_a_table_keeps_its_corrections() -> None:
    for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler"):
        table, starts = begun(name)
        rows = tuple((float(k), 0.0) for k in range(5))
        rest = starts[2].remaining(replace(table, correction=Correction(rows, rows, rows)))
        assert rest.correction is not None
        assert rest.correction.input_shift == rows[2:]
        assert rest.calls == 3


def test_a_start_survives_json() -> None:
    for start in begun("DPMSolverMultistepScheduler")[1]:
        assert Start.from_json(start.to_json()) == start
    for change in ({"signal": float("nan")}, {"call": -1}, {"noise": "x"}):
        with pytest.raises(ValueError, match=r"."):
            Start.from_json({"call": 1, "signal": 1.0, "noise": 1.0, "table": None, **change})


@pytest.mark.parametrize(
    ("strength", "steps", "rounds", "step"),
    [
        (1.0, 20, "up", 0),
        (0.8, 20, "up", 4),
        (0.6, 4, "up", 2),
        (0.6, 4, "down", 1),
        (0.29, 100, "up", 72),  # 28.999999999999996 in float64
        (0.29, 100, "down", 71),
        (0.25, 4, "up", 3),
        (0.01, 4, "down", 3),
    ],
)
def test_the_first_step_of_a_strength(strength: float, steps: int, rounds: str, step: int) -> None:
    assert first_step(strength, steps, rounds) == step


@pytest.mark.parametrize(
    ("strength", "said"),
    [(0.0, "got 0"), (1.01, "got 1.01"), (float("nan"), "got nan"), (0.2, "leaves none of 4 steps, allowed is 0.25")],
)
def test_a_strength_that_leaves_no_step_is_refused(strength: float, said: str) -> None:
    starts = begun("EulerDiscreteScheduler", steps=4)[1]
    with pytest.raises(RecipeError, match=said):
        chosen_start(starts, strength, "up")
    assert chosen_start(starts, 0.25, "up") is starts[3]


def test_more_steps_than_are_held_are_refused() -> None:
    scheduler = load_scheduler({"_class_name": "DDIMScheduler", "clip_sample": False})
    with pytest.raises(SamplerError, match="up to 100 steps, got 101"):
        probe_starts(scheduler, MOST_STEPS + 1, probe(scheduler, MOST_STEPS + 1))


def test_a_scheduler_that_adds_no_noise_is_refused() -> None:
    scheduler = load_scheduler({"_class_name": "DDIMScheduler", "clip_sample": False})
    table = probe(scheduler, 4)
    scheduler.add_noise = None
    with pytest.raises(SamplerError, match="adds no noise to a picture"):
        probe_starts(scheduler, 4, table)


@torch.no_grad()
def test_flux_begins_as_in_diffusers() -> None:
    """Its tokens are four latents each; noise is drawn for latents."""
    torch.manual_seed(0)
    network: Any = tiny_pipelines.flux().eval()
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    config = {**network.config, "_class_name": "FluxTransformer2DModel", "sample_size": 8}
    own = {**scheduler.config, "_class_name": "FlowMatchEulerDiscreteScheduler"}
    texts = torch.randn(1, 12, tiny_pipelines.WIDTH), torch.randn(1, POOLED)
    image, table = torch.rand(1, 3, 8, 8), sampler_table(config, own, 5)
    pipeline: Any = FluxImg2ImgPipeline(
        scheduler=scheduler, vae=tiny_pipelines.vae(shift_factor=0.1).eval(), text_encoder=None, tokenizer=None,
        text_encoder_2=None, tokenizer_2=None, transformer=network,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    for strength in (0.3, 0.6, 1.0):
        want = pipeline(
            prompt_embeds=texts[0], pooled_prompt_embeds=texts[1], image=image, height=8, width=8, strength=strength,
            num_inference_steps=5, generator=torch.Generator().manual_seed(7), output_type="latent",
        ).images  # fmt: skip
        start, generator = (
            chosen_start(sampler_starts(config, own, 5), strength, "down"),
            torch.Generator().manual_seed(7),
        )
        encoded = pipeline.vae.encode(image * 2 - 1).latent_dist.sample(generator)
        latents = (encoded - 0.1) * pipeline.vae.config.scaling_factor
        noised = start.signal * latents + start.noise * torch.randn(latents.shape, generator=generator)
        rest = start.remaining(table)
        keywords = {"encoder_hidden_states": texts[0], "pooled_projections": texts[1]}

        def called(x: torch.Tensor, k: int, rest: SamplerTable = rest) -> torch.Tensor:
            return call_network(network, x, torch.tensor([rest.timesteps[k]]), keywords)  # noqa: B023

        got = FluxPipeline._pack_latents(rollout(rest, called, noised)[-1], 1, 4, 8, 8)
        assert float((got - want).norm() / want.norm()) < 1e-5
