"""Probing reads the published coefficients, with the shortest memory, and refuses what no table can hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.sampler.diffusers_scheduler import load_scheduler
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.table import SamplerTable

DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False}


def table_of(config: dict[str, Any], steps: int = 6) -> SamplerTable:
    return probe(load_scheduler(config), steps)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddim_coefficients_are_those_of_the_paper(prediction: str) -> None:
    """Song et al. 2020, arXiv 2010.02502, equation 12 at eta 0, solved for x and the three kinds of output."""
    scheduler = load_scheduler({**DDIM, "prediction_type": prediction})
    table = probe(scheduler, 10)
    signal = scheduler.alphas_cumprod.double()
    for k, timestep in enumerate(table.timesteps):
        now, following = signal[int(timestep)], signal[int(timestep) - 100] if timestep >= 100 else torch.tensor(1.0)
        (p, q), (p_next, q_next) = (now.sqrt(), (1 - now).sqrt()), (following.sqrt(), (1 - following).sqrt())
        a, b = {
            "epsilon": (p_next / p, q_next - p_next * q / p),
            "sample": (q_next / q, p_next - p * q_next / q),
            "v_prediction": (p * p_next + q * q_next, p * q_next - q * p_next),
        }[prediction]
        assert table.a[k] == pytest.approx([float(a)], rel=1e-5, abs=1e-6)
        assert table.b[k] == pytest.approx([float(b)], rel=1e-4, abs=1e-6)


def test_euler_step_is_the_difference_of_noise_levels() -> None:
    scheduler = load_scheduler({"_class_name": "EulerDiscreteScheduler"})
    table = probe(scheduler, 7)
    scheduler.set_timesteps(7)
    sigmas = scheduler.sigmas.tolist()
    assert table.a == ((1.0,),) * 7
    assert [row[0] for row in table.b] == pytest.approx(torch.tensor(sigmas).diff().tolist())
    assert table.input_scale == pytest.approx([(sigma**2 + 1) ** -0.5 for sigma in sigmas[:-1]])
    assert table.init_noise_sigma == pytest.approx(sigmas[0])


@pytest.mark.parametrize(
    ("name", "options", "calls", "latents", "outputs"),
    [
        ("DDIMScheduler", {"clip_sample": False}, 9, 1, 1),
        ("FlowMatchEulerDiscreteScheduler", {}, 9, 1, 1),
        ("DPMSolverMultistepScheduler", {"prediction_type": "sample"}, 9, 1, 2),  # previous outputs are what it keeps
        ("DPMSolverMultistepScheduler", {}, 9, 2, 2),  # previous outputs as x0, hence with their latents
        ("PNDMScheduler", {"skip_prk_steps": True}, 10, 1, 5),  # call 1 is not kept, so the fourth is 4 calls back
        ("UniPCMultistepScheduler", {"prediction_type": "sample"}, 9, 1, 3),
        ("UniPCMultistepScheduler", {}, 9, 3, 3),  # keeps a running sum; the table does not have to
    ],
)
def test_memory_is_the_shortest(name: str, options: dict[str, Any], calls: int, latents: int, outputs: int) -> None:
    table = table_of({"_class_name": name, **options}, 9)
    assert (table.calls, len(table.a[0]), len(table.b[0])) == (calls, latents, outputs)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DDIMScheduler", {"clip_sample": False, "steps_offset": 1}),
        ("PNDMScheduler", {"skip_prk_steps": True}),
        ("EulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ],
)
def test_timesteps_are_the_scheduler_own_exactly(name: str, options: dict[str, Any]) -> None:
    scheduler = load_scheduler({"_class_name": name, **options})
    table = probe(scheduler, 6)
    scheduler.set_timesteps(6)
    assert torch.equal(torch.tensor(table.timesteps).to(scheduler.timesteps.dtype), scheduler.timesteps)
    if not scheduler.timesteps.is_floating_point():
        assert all(timestep.is_integer() for timestep in table.timesteps)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LCMScheduler", {}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("DDPMScheduler", {"clip_sample": False}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    ],
)
def test_noise_that_a_scheduler_draws_itself_is_an_input_of_the_table(name: str, options: dict[str, Any]) -> None:
    scheduler = load_scheduler({"_class_name": name, **options})
    table = probe(scheduler, 5)
    assert table.stochastic
    scheduler.set_timesteps(5)
    drawn, again = (torch.Generator().manual_seed(3) for _ in range(2))
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(4)) * table.init_noise_sigma
    outputs: list[torch.Tensor] = []
    ours, latents = x, [x]
    for k, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(torch.tanh(scaled), timestep, x, generator=drawn, return_dict=False)[0]
        outputs.insert(0, torch.tanh(latents[0] * table.input_scale[k]))
        noise = torch.randn(x.shape, generator=again) if not torch.equal(drawn.get_state(), again.get_state()) else None
        ours = table.advance(k, latents, outputs, torch.zeros_like(x) if noise is None else noise)
        latents.insert(0, ours)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_the_scheduler_and_the_random_state_are_left_alone() -> None:
    scheduler = load_scheduler(DDIM)
    scheduler.set_timesteps(4)
    before, random = scheduler.timesteps.clone(), torch.get_rng_state()
    probe(scheduler, 9, eta=1.0)
    assert torch.equal(scheduler.timesteps, before)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_scheduler_in_the_middle_of_a_run_gives_the_same_table() -> None:
    scheduler = load_scheduler({"_class_name": "UniPCMultistepScheduler"})
    fresh = probe(scheduler, 5)
    scheduler.set_timesteps(5)
    x = torch.ones(1, 3, 2, 2)
    for t in scheduler.timesteps[:3]:
        x = scheduler.step(x, t, x).prev_sample
    assert probe(scheduler, 5) == fresh


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("DDIMScheduler", {}, "not linear .*clip_sample=True"),
        ("DDIMScheduler", {"clip_sample_range": 100.0, "prediction_type": "sample"}, "not linear .*clip_sample=True"),
        ("DDIMScheduler", {"clip_sample": False, "thresholding": True}, "not linear .*thresholding=True"),
        ("DDIMScheduler", {"clip_sample": False, "thresholding": True, "sample_max_value": 50.0}, "thresholding=True"),
        ("DPMSolverMultistepScheduler", {"thresholding": True}, "not linear .*thresholding=True"),
        (
            "DPMSolverMultistepScheduler",
            {"variance_type": "learned"},
            "variance_type='learned'.*set variance_type to null",
        ),
        (
            "DDPMScheduler",
            {"clip_sample": False, "variance_type": "learned_range"},
            "learned_range.*set variance_type to fixed_small",
        ),
        ("ScoreSdeVeScheduler", {}, "got ScoreSdeVeScheduler; networks made for it are not supported"),
        (
            "DDIMScheduler",
            {"num_train_timesteps": 500_000_000},
            r"num_train_timesteps is 5e\+08, allowed are whole numbers up to 100000",
        ),
        ("DPMSolverMultistepScheduler", {"solver_order": 10**9}, "solver_order is 1e.09, allowed"),
        ("UniPCMultistepScheduler", {"thresholding": True}, "not linear .*thresholding=True"),
        (
            "DDIMScheduler",
            {"clip_sample": False, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
            "divides by zero .*rescale_betas_zero_snr=True",
        ),
        ("UniPCMultistepScheduler", {"lower_order_final": False}, "divides by zero .*lower_order_final=False"),
        ("PNDMScheduler", {}, "looks back .*skip_prk_steps=False"),
        (
            "PNDMScheduler",
            {"skip_prk_steps": True, "prediction_type": "sample"},
            "PNDMScheduler failed .*prediction_type",
        ),
        ("IPNDMScheduler", {}, "prediction_type of IPNDMScheduler.*add what its network predicts"),
        ("IPNDMScheduler", {"prediction_type": "trigflow"}, "got 'trigflow'; networks that predict something else"),
    ],
)
def test_what_no_table_can_hold_is_refused_by_name(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(SamplerError, match=rf"\A[^\n]*{text}[^\n]*\Z"):
        table_of({"_class_name": name, **options})


def test_input_scaling_that_is_no_factor_is_refused() -> None:
    scheduler = load_scheduler(DDIM)
    scheduler.scale_model_input = lambda x, t: x.clamp(-2, 2)
    with pytest.raises(SamplerError, match="not linear"):
        probe(scheduler, 3)


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, True, None])
def test_steps_are_checked(steps: Any) -> None:
    with pytest.raises(SamplerError, match=r"1-1000 .*got"):
        table_of(DDIM, steps)


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan")])
def test_eta_is_checked(eta: float) -> None:
    with pytest.raises(SamplerError, match="eta must be in 0-1"):
        probe(load_scheduler(DDIM), 3, eta=eta)


def test_eta_without_effect_is_refused() -> None:
    with pytest.raises(SamplerError, match="EulerDiscreteScheduler has no eta"):
        probe(load_scheduler({"_class_name": "EulerDiscreteScheduler"}), 3, eta=0.5)


@pytest.mark.parametrize("thing", [None, torch.nn.Identity(), "DDIMScheduler"])
def test_anything_but_a_scheduler_is_refused(thing: Any) -> None:
    with pytest.raises(SamplerError, match=f"got {type(thing).__name__}"):
        probe(thing, 3)


@pytest.mark.parametrize("name", ["Nope", "SchedulerMixin", None, "torch.nn.Linear"])
def test_an_unknown_class_is_refused_with_the_list(name: str | None) -> None:
    with pytest.raises(SamplerError, match=r"DDIMScheduler.*EulerDiscreteScheduler.*got"):
        load_scheduler({"_class_name": name})


def test_the_remedies_that_refusals_name_work() -> None:
    for config in ({"_class_name": "DPMSolverMultistepScheduler", "variance_type": None}, {**DDIM, "num_train_timesteps": 2000},
                   {"_class_name": "DDPMScheduler", "clip_sample": False, "variance_type": "fixed_small"},
                   {"_class_name": "IPNDMScheduler", "prediction_type": "v_prediction"}):  # fmt: skip
        assert table_of(config, 3).calls == 3


def test_a_consistency_model_has_a_table_with_noise_between_its_steps() -> None:
    """Song et al. 2023, algorithm 1: no noise where there is one step only."""
    config = {"_class_name": "CMStochasticIterativeScheduler", "clip_denoised": False}
    assert table_of(config, 2).prediction_type == "consistency"
    assert table_of(config, 2).stochastic
    assert not table_of(config, 1).stochastic


def test_an_option_the_class_refuses_is_reported() -> None:
    with pytest.raises(SamplerError, match=r"DDIMScheduler failed .*no_such_schedule"):
        load_scheduler({**DDIM, "beta_schedule": "no_such_schedule"})
