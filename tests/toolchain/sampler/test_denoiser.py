"""Guidance in one batch is guidance from two separate calls; the step is announced before the call."""

from __future__ import annotations

import torch
from diffusers import EulerDiscreteScheduler
from torch import Tensor, nn

from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.denoiser import Denoiser, outputs_at
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import rollout
from tests.tiny import labels, noise, scheduler, tiny_unet

TABLE = probe(scheduler(), 4)


@torch.no_grad()
def test_guidance_equals_the_formula_on_two_calls() -> None:
    unet, x, conditioning = tiny_unet(), noise(3), labels(3)
    alone = [Denoiser(unet, TABLE, Conditioning(side))(x, 2) for side in (conditioning.cond, conditioning.uncond)]
    guided = Denoiser(unet, TABLE, conditioning, 2.5)(x, 2)
    torch.testing.assert_close(guided, alone[1] + 2.5 * (alone[0] - alone[1]), rtol=1e-5, atol=1e-5)
    assert (guided - alone[0]).abs().max() > 1e-3
    assert torch.equal(Denoiser(unet, TABLE, conditioning, 1.0)(x, 2), alone[0])


def test_the_network_gets_the_tables_timestep_once_per_call() -> None:
    calls: list[tuple[int, float]] = []
    steps: list[int] = []

    class Recorder(nn.Module):
        def forward(
            self, x: Tensor, time: Tensor, class_labels: Tensor, return_dict: bool = False
        ) -> tuple[Tensor, ...]:
            assert not return_dict
            assert time.shape == class_labels.shape
            assert (time == time[0]).all()
            calls.append((len(x), float(time[0])))
            return (x,)

    for guidance, batch in ((1.0, 2), (3.0, 4)):
        denoiser = Denoiser(Recorder(), TABLE, labels(2), guidance, steps.append)
        out = denoiser(noise(2), 1)
        assert out.shape == noise(2).shape
        assert calls[-1] == (batch, TABLE.timesteps[1])
    assert steps == [1, 1]


def test_selecting_samples_selects_both_sides() -> None:
    part = labels(5).select(slice(1, 3))
    assert part.cond["class_labels"].tolist() == [1, 2]
    assert part.uncond["class_labels"].tolist() == [10, 10]
    assert part.doubled["class_labels"].tolist() == [10, 10, 1, 2]


class Given(nn.Module):
    """Answers with half of what it is given, and keeps it."""

    def forward(self, x: Tensor, time: Tensor, class_labels: Tensor) -> tuple[Tensor, ...]:
        self.sample = x
        return (x / 2,)


def test_the_network_is_given_the_scaled_latent() -> None:
    table, network = probe(EulerDiscreteScheduler(), 3), Given()
    denoiser = Denoiser(network, table, Conditioning(labels(2).cond))
    assert len(set(table.input_scale)) == 3
    for k in range(3):
        x = noise(2, seed=k)
        assert torch.equal(denoiser(x, k), table.input_scale[k] * x / 2)
        assert torch.equal(network.sample, table.input_scale[k] * x)


@torch.no_grad()
def test_outputs_at_its_own_latents_are_those_of_the_rollout() -> None:
    table = probe(EulerDiscreteScheduler(), 3)
    denoiser = Denoiser(tiny_unet(), table, labels(2), 2.0)
    outputs: list[Tensor] = []
    latents = rollout(table, denoiser, table.init_noise_sigma * noise(2), on_step=lambda _k, _x, f: outputs.append(f))
    assert torch.equal(outputs_at(denoiser, latents), torch.stack(outputs))
    assert not torch.equal(outputs_at(denoiser, latents.flip(0)), torch.stack(outputs))
