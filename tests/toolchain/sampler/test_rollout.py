"""A run of the probed table is a run of the scheduler's own loop, to 1e-5, for any network and from any call on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.sampler.diffusers_scheduler import load_scheduler
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import State, rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable

Config = dict[str, Any]
SHAPE = (2, 3, 4, 4)

DDIM: Config = {"_class_name": "DDIMScheduler", "clip_sample": False}
EULER: Config = {"_class_name": "EulerDiscreteScheduler"}
DPM: Config = {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++", "solver_order": 2}
PNDM: Config = {"_class_name": "PNDMScheduler", "skip_prk_steps": True}
UNIPC: Config = {"_class_name": "UniPCMultistepScheduler"}
FLOW: Config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}

PREDICTIONS = {"DDIMScheduler": ("epsilon", "sample", "v_prediction"), "PNDMScheduler": ("epsilon", "v_prediction")}
CONFIGS = [
    {**config, "prediction_type": prediction, "timestep_spacing": spacing}
    for config in (DDIM, EULER, DPM, PNDM, UNIPC)
    for prediction in PREDICTIONS.get(config["_class_name"], PREDICTIONS["DDIMScheduler"])
    for spacing in ("leading", "trailing", "linspace")
] + [
    FLOW,
    {**FLOW, "use_karras_sigmas": True},
    {**DDIM, "beta_schedule": "squaredcos_cap_v2", "set_alpha_to_one": False, "steps_offset": 1},
    {**DDIM, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    {**EULER, "use_karras_sigmas": True},
    {**DPM, "solver_order": 3, "use_karras_sigmas": True},
    {**DPM, "solver_type": "heun", "final_sigmas_type": "sigma_min"},
    {**UNIPC, "solver_order": 3},
    {**UNIPC, "disable_corrector": [0, 2]},
    {**UNIPC, "predict_x0": False, "final_sigmas_type": "sigma_min"},
    {**UNIPC, "use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    {"_class_name": "DEISMultistepScheduler"},
    {"_class_name": "HeunDiscreteScheduler"},
]


def name_of(config: Config) -> str:
    return "-".join(str(value).removesuffix("Scheduler") for value in config.values())


class TanhNetwork:
    """A small random network that depends on what it is given as the timestep."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(7)
        self.weight = torch.randn(3, 3, 3, 3, generator=generator).to(dtype) / 4

    def __call__(self, x: Tensor, timestep: float) -> Tensor:
        return torch.tanh(torch.conv2d(x, self.weight, padding=1) + torch.tensor(timestep / 100).sin().to(x.dtype))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def own_loop(config: Config, steps: int, start: Tensor, noise: Tensor | None = None, eta: float = 0.0) -> Tensor:
    """What a diffusers pipeline does, in float64: some steps subtract large terms and lose 1e-5 in float32."""
    scheduler, network = load_scheduler(config), TanhNetwork(torch.float64)
    scheduler.set_timesteps(steps)
    run = [start.double()]
    for k, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(run[-1], t) if hasattr(scheduler, "scale_model_input") else run[-1]
        given = {} if noise is None else {"variance_noise": noise[k].double()} | ({"eta": eta} if eta else {})
        run.append(scheduler.step(network(scaled, float(t)), t, run[-1], **given).prev_sample)
    return torch.stack(run)


def table_loop(table: SamplerTable, start: Tensor, **options: Any) -> Tensor:
    network = TanhNetwork()
    return rollout(table, lambda x, k: network(table.input_scale[k] * x, table.timesteps[k]), start, **options)


def worst_error(ours: Tensor, theirs: Tensor) -> float:
    """Relative error of the worst latent of the run."""
    assert ours.shape == theirs.shape
    return float(((ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_table_runs_as_the_scheduler_does(config: Config, steps: int) -> None:
    table = probe(load_scheduler(config), steps)
    start = table.init_noise_sigma * normal(*SHAPE)
    assert worst_error(table_loop(table, start), own_loop(config, steps, start)) < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize(
    ("config", "eta"),
    [
        *[({**DDIM, "prediction_type": prediction}, 1.0) for prediction in PREDICTIONS["DDIMScheduler"]],
        ({**DDIM, "timestep_spacing": "trailing"}, 0.3),
        ({**DPM, "algorithm_type": "sde-dpmsolver++"}, 0.0),
    ],
)
def test_stored_noise_takes_the_place_of_drawn_noise(config: Config, eta: float, steps: int) -> None:
    table = probe(load_scheduler(config), steps, eta=eta)
    start, noise = normal(*SHAPE), normal(table.calls, *SHAPE, seed=1)
    theirs = own_loop(config, steps, start, noise, eta)
    assert worst_error(table_loop(table, start, noise=noise), theirs) < 1e-5
    if steps > 1:
        assert table.stochastic
        assert worst_error(table_loop(table, start, noise=-noise), theirs) > 1e-3


@pytest.mark.parametrize("config", [DDIM, DPM, PNDM, UNIPC], ids=name_of)
def test_a_run_in_pieces_is_the_whole_run(config: Config) -> None:
    table = probe(load_scheduler(config), 8)
    outputs: list[Tensor] = []
    whole = table_loop(table, normal(*SHAPE), on_step=lambda k, x, f: outputs.append(f))
    for first in range(table.calls):
        piece = table_loop(
            table,
            whole[first],
            first=first,
            last=first + 1,
            past_latents=list(whole[:first].flip(0)),
            past_outputs=outputs[:first][::-1],
        )
        assert torch.equal(piece, whole[first : first + 2])


def test_on_step_sees_every_call_with_its_latent_and_output() -> None:
    table = probe(load_scheduler(EULER), 3)
    seen: list[tuple[int, Tensor, Tensor]] = []
    run = table_loop(table, table.init_noise_sigma * normal(*SHAPE), on_step=lambda *call: seen.append(call))
    assert [k for k, _, _ in seen] == [0, 1, 2]
    for k, x, f in seen:
        assert torch.equal(x, run[k])
        assert torch.equal(f, TanhNetwork()(table.input_scale[k] * x, table.timesteps[k]))


def test_an_empty_range_is_the_start_alone() -> None:
    table, start = probe(load_scheduler(DDIM), 3), normal(*SHAPE)
    assert torch.equal(table_loop(table, start, first=2, last=2), start[None])


def test_gradient_through_a_rollout_is_that_of_finite_differences() -> None:
    table = probe(load_scheduler(UNIPC), 4)
    network = TanhNetwork(torch.float64)
    start = normal(1, 3, 2, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: rollout(table, lambda z, k: network(table.input_scale[k] * z, table.timesteps[k]), x)[-1], (start,)
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"first": -1}, "calls 0-3"),
        ({"first": 2, "last": 1}, "calls 0-3"),
        ({"last": 4}, "calls 0-3"),
        ({}, "noise"),
        ({"noise": torch.zeros(2, *SHAPE)}, "shape"),
        ({"noise": torch.zeros(3, 1, *SHAPE[1:])}, "shape"),
    ],
)
def test_a_rollout_that_cannot_be_run_is_refused(options: dict[str, Any], text: str) -> None:
    table = probe(load_scheduler(DDIM), 3, eta=1.0)
    with pytest.raises(SamplerError, match=text):
        table_loop(table, normal(*SHAPE), **options)


def test_starting_late_without_the_past_is_refused() -> None:
    table = probe(load_scheduler(DPM), 8)
    with pytest.raises(SamplerError, match=r"call 4 .* needs up to 2 latents, got 1"):
        table_loop(table, normal(*SHAPE), first=4)


def test_a_network_with_extra_channels_is_refused() -> None:
    table = probe(load_scheduler(DDIM), 2)
    with pytest.raises(SamplerError, match="learned variance"):
        rollout(table, lambda x, k: torch.cat([x, x], 1), normal(*SHAPE))


@pytest.mark.parametrize("config", [DDIM, DPM, PNDM, UNIPC], ids=name_of)
def test_a_state_carried_from_call_to_call_is_the_run(config: Config) -> None:
    table, network = probe(load_scheduler(config), 8), TanhNetwork()
    whole = table_loop(table, normal(*SHAPE))
    state = State((whole[0],))
    for k in range(table.calls):
        state = state.after(table, k, network(table.input_scale[k] * state.latent, table.timesteps[k]))
        assert torch.equal(state.latent, whole[k + 1])
        assert len(state.latents) <= len(table.a[0])
        assert len(state.outputs) <= len(table.b[0])
