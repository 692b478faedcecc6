"""Replayed passes give the numbers of passes run as they are, to the bit, and leave nothing behind."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from benchmarks.graph_speed import Case as Speed
from benchmarks.graph_speed import as_on_a_gpu, measure
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
from dq_toolchain.calibrate.network import graphs
from dq_toolchain.calibrate.network.graphs import Graphs, not_replayed, recorder_for, replayed
from dq_toolchain.calibrate.network.insert import QuantizedNetwork, prepare
from dq_toolchain.calibrate.network.recorder import Work
from dq_toolchain.calibrate.network.tape import Tape
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.recipe.sections import QuantizeSection
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import State, rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable
from tests.tiny import conditioning_of, noise, small_unet, tiny_condition_unet

STEPS, GROUPS = 4, (0, 0, 1, 1)
SAMPLERS = {"ddim": DDIMScheduler, "dpm": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
FIRST = (2, 0, 1, 0, 2)
"""First steps of the iterations: both step groups, and segments that go from one to the other."""


@pytest.fixture(autouse=True)
def gpu_like() -> Iterator[None]:
    with as_on_a_gpu():
        yield


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


@pytest.mark.parametrize("name", CASES)
def test_losses_latents_and_gradients_are_those_of_passes_run_as_they_are(name: str) -> None:
    make, kind = CASES[name]
    plain, replaying = make(), make()
    expected = iterate(plain, kind)
    with recording(replaying):
        found = iterate(replaying, kind)
        kinds = len(replaying.graphs)
    assert same(found, expected)
    # per step group: without gradient; with gradients of parameters alone; and, for the adjoint, of the latent too
    assert kinds == (6 if kind == "adjoint" else 4)


def test_weights_that_stay_and_rollouts_of_two_precisions() -> None:
    plain, replaying = case(), case()

    def figures(which: Case) -> Figures:
        with which.network.frozen_weights():
            found = iterate(which, "adjoint", weights=False)
            with torch.no_grad():
                for shortened in (False, True, False):
                    with torch.autocast("cpu", torch.bfloat16, enabled=shortened):
                        found.append(rollout(which.table, which.denoiser(5), which.noise(5)))
            return found

    expected = figures(plain)
    assert not torch.equal(expected[-1], expected[-2])
    with recording(replaying, learns_weights=False):
        assert same(figures(replaying), expected)
        assert len(replaying.graphs) == 6 + 2 + 2


def test_other_shapes_and_another_choice_of_what_learns_are_recorded_anew() -> None:
    plain, replaying = case(), case()

    def figures(which: Case) -> Figures:
        found = iterate(which, "adjoint", sizes=(3, 2))
        with which.network.frozen_weights():
            found += iterate(which, "adjoint", weights=False)
        return found + iterate(which, "adjoint")

    expected = figures(plain)
    with recording(replaying):
        assert same(figures(replaying), expected)


def test_a_pass_is_recorded_once_it_was_asked_for_often_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "WORTH_RECORDING", 2)
    which = case()
    x, counts = which.noise(), []
    with recording(which, learns_weights=False), which.network.frozen_weights(), torch.no_grad():
        for _ in range(4):
            which.denoiser()(x, 0)
            counts.append(len(which.graphs))
    assert counts == [0, 0, 1, 1]


def test_a_pass_is_not_differentiated_after_another_was_replayed() -> None:
    which = case()
    with recording(which), which.network.weights_once():
        first = which.denoiser()(which.noise(), 0)
        second = which.denoiser()(which.noise(), 0)
        second.sum().backward()
        with pytest.raises(RuntimeError, match="its activations are gone"):
            first.sum().backward()


def test_memory_of_recordings_is_free_at_the_end() -> None:
    alive: list[weakref.ref[Work]] = []

    class Noted(Tape):
        def record(self, works: Sequence[Work]) -> list[Work]:
            replays = super().record(works)
            alive.extend(weakref.ref(replay) for replay in replays)
            return replays

    which = case()
    gc.collect()
    gc.disable()  # memory on a GPU shall not wait for the collector
    try:
        with replayed(which.network, Noted, pytest.fail, learns_weights=True):
            iterate(which, "adjoint")
            assert all(each() is not None for each in alive)
        assert len(alive) == 2 + 2 + 4 * 2  # weights; plain passes; pairs
        assert all(each() is None for each in alive)
    finally:
        gc.enable()
    assert which.network.graphs is None


def test_an_iteration_hands_fifty_operations_to_the_device_instead_of_thousands(tiny_model: Path) -> None:
    found = measure(Speed(model=tiny_model, device="cpu", samples=2, steps=4, rounds=1), Tape)
    assert found.apart == 0.0
    assert found.operations is not None
    plain, replaying = found.operations
    assert plain > 2000
    assert replaying < 50


@contextmanager
def reads_a_number(network: QuantizedNetwork) -> Iterator[None]:
    handle = network.inner.get_submodule("conv_out").register_forward_hook(
        lambda _m, _i, out: out * float(out.detach().abs().max() > 0)
    )
    try:
        yield
    finally:
        handle.remove()


def test_what_cannot_be_recorded_runs_as_it_is_and_the_reason_is_said_once() -> None:
    plain, replaying, said = case(), case(), list[str]()
    with reads_a_number(plain.network):
        expected = iterate(plain, "adjoint")
    with reads_a_number(replaying.network), replayed(replaying.network, Tape, said.append, learns_weights=True):
        assert same(iterate(replaying, "adjoint"), expected)
    (reason,) = said
    assert "reads a number from the device" in reason


def test_weights_that_cannot_be_recorded_are_quantized_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Tape):
        def record(self, works: Sequence[Work]) -> list[Work]:
            raise RuntimeError("out of memory\nmore of it")

    plain, replaying, said = case(), case(), list[str]()
    expected = iterate(plain, "adjoint")
    with replayed(replaying.network, Refusing, said.append, learns_weights=True):
        assert same(iterate(replaying, "adjoint"), expected)
    assert [text.rpartition(": ")[2] for text in said] == ["out of memory"]


def test_hooks_are_heard_where_passes_are_not_replayed() -> None:
    which, heard = case(), list[int]()
    with recording(which, learns_weights=False), which.network.frozen_weights(), torch.no_grad():
        which.denoiser()(which.noise(), 0)
        handle = which.network.activations["conv_in:input"].register_forward_hook(lambda *_: heard.append(1))
        which.denoiser()(which.noise(), 0)
        assert not heard
        with not_replayed(which.network):
            which.denoiser()(which.noise(), 0)
        assert heard == [1]
        handle.remove()


@pytest.fixture
def gpu() -> torch.device:
    """``DQ_TEST_DEVICE=cpu`` shows without a GPU that the tests for one can be run."""
    name = os.environ.get("DQ_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return torch.device(name)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_latents_are_the_same_and_gradients_but_for_the_order_of_sums(name: str, gpu: torch.device) -> None:
    make, kind = CASES[name]
    which = make()
    which.network.to(gpu)
    expected = iterate(which, kind, descent=0.0)
    with recording(which):
        iterate(which, kind, descent=0.0)  # records
        found = iterate(which, kind, descent=0.0)
        assert len(which.graphs) > 0
    again = iterate(which, kind, descent=0.0)
    assert len(found) == len(expected)
    for replay, plain, other in zip(found, expected, again, strict=True):
        noise = float((other - plain).norm())
        assert float((replay - plain).norm()) <= 2 * noise + 1e-5 * float(plain.norm())


@pytest.mark.gpu
def test_on_a_gpu_memory_of_recordings_is_free_at_the_end(gpu: torch.device) -> None:
    if gpu.type != "cuda":
        pytest.skip("memory of a CPU is not torch's to count")
    which = case()
    which.network.to(gpu)
    held = []
    for _ in range(3):
        with recording(which):
            iterate(which, "adjoint", descent=0.0)
            inside = torch.cuda.memory_reserved(gpu)
        held.append(torch.cuda.memory_reserved(gpu))
    assert held[2] <= held[1] < inside
