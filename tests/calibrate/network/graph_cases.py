"""Tiny networks whose passes are replayed and run as they are, and what iterations of both give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from torch import Tensor, nn

from dq_toolchain.calibrate.multistep.gradients import Gradient, segment_gradient
from dq_toolchain.calibrate.multistep.objective import robust_loss
from dq_toolchain.calibrate.network.graphs import Graphs, recorder_for, replayed
from dq_toolchain.calibrate.network.insert import QuantizedNetwork, prepare
from dq_toolchain.calibrate.network.tape import Tape
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.recipe.sections import QuantizeSection
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import State
from dq_toolchain.toolchain.sampler.table import SamplerTable
from tests.tiny import conditioning_of, noise, small_unet, tiny_condition_unet

STEPS, GROUPS = 4, (0, 0, 1, 1)
SAMPLERS = {"ddim": DDIMScheduler, "dpm": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
FIRST = (2, 0, 1, 0, 2)
"""First steps of the iterations: both step groups, and segments that go from one to the other."""


@dataclass(frozen=True)
class Case:
    unet: UNet2DModel | UNet2DConditionModel
    network: QuantizedNetwork
    table: SamplerTable
    guidance: float

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def denoiser(self, count: int = 3) -> Denoiser:
        conditioning = conditioning_of(self.unet, count).to(self.device)
        return Denoiser(self.network, self.table, conditioning, self.guidance, self.network.set_step)

    def noise(self, count: int = 3, seed: int = 1) -> Tensor:
        return noise(count, seed, self.unet.config.in_channels).to(self.device)

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        return self.network.scale_parameters() | self.network.weight_parameters()

    @property
    def graphs(self) -> Graphs:
        assert self.network.graphs is not None
        return self.network.graphs


def case(*, text: bool = False, sampler: str = "ddim", guidance: float = 1.0, rounding: bool = True) -> Case:
    unet = tiny_condition_unet() if text else small_unet()
    conditioning = conditioning_of(unet, 1)

    def run(network: nn.Module) -> object:
        x = noise(1, channels=unet.config.in_channels)
        return call_network(network, x, torch.tensor([10.0]), conditioning.cond)

    settings = QuantizeSection(weight_bits=4, scheme="affine", attention="int8" if text else "float")
    prepared = prepare(unet, settings, run)
    shape = (2, len(prepared.sites))
    scale = torch.tensor([[2.0**-5], [2.0**-4]]).expand(shape)
    zero_point = torch.tensor([[3], [-7]], dtype=torch.int32).expand(shape)
    weight_scales = {
        name: layer.weight.flatten(1).abs().amax(1) / 7 for name, layer in weighted_layers(prepared.network)
    }
    network = QuantizedNetwork(prepared, scale, zero_point, weight_scales, GROUPS, learned_rounding=rounding)
    clip = {"clip_sample": False} if sampler == "ddim" else {}
    scheduler = SAMPLERS[sampler](beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", **clip)
    return Case(unet, network, probe(scheduler, STEPS), guidance)


def recording(case: Case, learns_weights: bool = True) -> AbstractContextManager[None]:
    def warn(reason: str) -> None:
        raise AssertionError(reason)

    new_recorder = recorder_for(case.device) or Tape
    return replayed(case.network, new_recorder, warn, learns_weights=learns_weights)


Figures = list[Tensor]


def iterate(
    case: Case, kind: Gradient, weights: bool = True, sizes: Sequence[int] = (3,), descent: float = 0.01
) -> Figures:
    """A few iterations with a plain descent between them: losses, latents and gradients of each."""
    found: Figures = []
    history = max(len(case.table.a[0]), len(case.table.b[0]))
    for number, first in enumerate(FIRST):
        count = sizes[number % len(sizes)]
        latents = tuple(case.noise(count, 10 * number + i) for i in range(min(history, first + 1)))
        outputs = tuple(case.noise(count, 10 * number + 5 + i) for i in range(min(history, first)))
        targets = torch.stack([case.noise(count, 100 + number + i) for i in range(3)])
        loss = robust_loss(targets, first, 2)
        for parameter in case.learned.values():
            if parameter.grad is not None:
                parameter.grad.zero_()
        with case.network.weights_once() if weights else nullcontext():
            value, visited = segment_gradient(
                case.table, case.denoiser(count), State(latents, outputs), first, 2, loss, kind
            )
        gradients = [p.grad for p in case.learned.values() if p.grad is not None and p.requires_grad]
        found += [value, *visited, *(gradient.clone() for gradient in gradients)]
        with torch.no_grad():
            for parameter in case.learned.values():
                if parameter.grad is not None and parameter.requires_grad:
                    parameter.sub_(descent * parameter.grad)
        case.network.clamp_offsets()
    return found


def same(a: Figures, b: Figures) -> bool:
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


CASES: dict[str, tuple[Callable[[], Case], Gradient]] = {
    "labels, guidance": (lambda: case(guidance=2.0), "adjoint"),
    "text, int8 attention": (lambda: case(text=True), "adjoint"),
    "a sampler that looks back": (lambda: case(sampler="dpm"), "surrogate"),
    "one that looks back further, nearest rounding": (lambda: case(sampler="unipc", rounding=False), "adjoint"),
}
