"""A fit goes on from its checkpoint to the same numbers, keeps its best iterate, and sums the gradients of all processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.graph_speed import as_on_a_gpu
from torch import Tensor

from dq_toolchain.calibrate.data.context import ROLLOUT_BATCH
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.fitting.multi_step import MULTI_STEP
from dq_toolchain.calibrate.fitting.phase import Work
from dq_toolchain.calibrate.fitting.run import fit_network
from dq_toolchain.calibrate.multistep import fit as fit_module
from dq_toolchain.calibrate.multistep.fit import MultiStepFit
from dq_toolchain.calibrate.multistep.problem import Problem, Segment
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.network.tape import Tape
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.work import checkpoint as checkpoints
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.calibrate.work.workers import Workers
from dq_toolchain.toolchain.errors import CalibrationError
from tests.calibrate.conftest import QUIET, Measured, measured

SAMPLES = 9
"""One judges, eight are fitted."""


@pytest.fixture(scope="module")
def ready(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    few = {"samples": SAMPLES, "batch": 8, "warmup": 6, "iterations": 3, "settling": 0, "group_iterations": 1}
    return measured(tiny_model, tmp_path_factory.mktemp("fit"), quantize={"weight_bits": 4}, calibrate=few)


def network_of(ready: Measured) -> QuantizedNetwork:
    return quantize_with(ready.context, ready.scale, ready.zero_point, ready.recipe)


def fitted(ready: Measured, network: QuantizedNetwork, folder: Path, workers: Workers | None = None) -> list[Any]:
    context = ready.context if workers is None else replace(ready.context, workers=workers)
    work = Work(
        recipe=ready.recipe,
        network=network,
        trajectories=Trajectories(context, ready.trajectories.targets),
        chosen=None,
        block_options={},
        checkpoint=CheckpointFile.of(folder, "fit", "0" * 64),
        reporter=QUIET,
    )
    return fit_network((MULTI_STEP,), work).stages


def values(network: QuantizedNetwork) -> dict[str, Tensor]:
    parameters = network.scale_parameters() | network.weight_parameters()
    return {name: value.detach().clone() for name, value in parameters.items()}


@dataclass(frozen=True)
class Share(Workers):
    """One of ``count`` processes that never hears of the others, and notes the gradients that it would send them."""

    sent: list[list[Tensor]] = field(default_factory=list)

    def gather(self, part: Tensor, items: int, dim: int = 0) -> Tensor:
        shape = [*part.shape]
        shape[dim] = items
        whole = torch.zeros(shape, dtype=part.dtype)
        rows = self.share(items)
        whole.narrow(dim, rows.start, rows.stop - rows.start).copy_(part)
        return whole

    def sum(self, x: Tensor) -> Tensor:
        return x * self.count

    def average_(self, tensors: Iterable[Tensor | None]) -> None:
        self.sent.append([tensor.clone() for tensor in tensors if tensor is not None])


def test_the_mean_of_the_shares_gradients_is_the_whole_batchs_and_one_alone_is_not(
    ready: Measured, tmp_path: Path
) -> None:
    def first_gradient(rank: int, count: int) -> Tensor:
        share = Share(rank, count)
        fitted(ready, network_of(ready), tmp_path / f"{rank} of {count}", share)
        return torch.cat([gradient.flatten() for gradient in share.sent[0]])

    whole, one, two = first_gradient(0, 1), first_gradient(0, 2), first_gradient(1, 2)
    assert float(((one + two) / 2 - whole).norm()) < 1e-4 * float(whole.norm())
    for alone in (one, two):
        assert float((alone - whole).norm()) > 0.1 * float(whole.norm())


def test_a_fit_that_was_stopped_anywhere_ends_in_the_same_numbers(
    ready: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = network_of(ready)
    stages = fitted(ready, straight, tmp_path / "straight")
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    iterate, stops = MultiStepFit._iterate, [2, 7, 8]

    def stopped(self: MultiStepFit, stage: Any) -> float | None:
        loss = iterate(self, stage)
        if stops and self.done_iterations == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        return loss

    monkeypatch.setattr(MultiStepFit, "_iterate", stopped)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            fitted(ready, network_of(ready), tmp_path / "stopped")
    last = network_of(ready)
    assert fitted(ready, last, tmp_path / "stopped") == stages
    assert not stops
    for name, value in values(straight).items():
        assert torch.equal(value, values(last)[name]), name


def test_numbers_that_come_late_change_no_number(
    ready: Measured, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    at_once = network_of(ready)
    stages = fitted(ready, at_once, tmp_path / "at once")
    request.getfixturevalue("late")
    network = network_of(ready)
    assert fitted(ready, network, tmp_path / "late") == stages
    for name, value in values(at_once).items():
        assert torch.equal(value, values(network)[name]), name


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> str:
    """The gradient of one bias is NaN from the fourth iteration on, and losses are finite: the name of the bias."""
    name, differentiate = "down_blocks.0.resnets.0.conv1.bias", MultiStepFit._differentiate

    def poisoning(self: MultiStepFit, stage: Any, segment: Any) -> Tensor:
        numbers = differentiate(self, stage, segment)
        if self.progress.iteration < 3:
            return numbers
        gradient = self.parameters[name].grad
        assert gradient is not None
        gradient[0] = torch.nan
        return torch.stack([numbers[0], gradient.abs().max()])

    monkeypatch.setattr(MultiStepFit, "_differentiate", poisoning)
    return name


@pytest.mark.parametrize("when", ["at once", "late"])
def test_what_is_not_finite_is_refused_and_reaches_no_checkpoint(
    when: str,
    poisoned: str,
    ready: Measured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    if when == "late":
        request.getfixturevalue("late")
    network = network_of(ready)
    with pytest.raises(CalibrationError, match=rf"warm-up', iteration 3: NaN or infinity at site {poisoned}"):
        fitted(ready, network, tmp_path)
    assert all(value.isfinite().all() for value in values(network).values())
    saved = CheckpointFile.of(tmp_path, "fit", "0" * 64).load()
    assert saved is not None
    tensors, state = saved
    assert state["iteration"] == 3
    assert all(value.isfinite().all() for value in tensors.values())


def test_a_late_refusal_is_never_saved_over(
    poisoned: str, late: None, ready: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is due right after the iteration whose numbers are still on their way."""
    asked = itertools.count()
    monkeypatch.setattr(CheckpointFile, "due", property(lambda _self: next(asked) == 3))
    network = network_of(ready)
    with pytest.raises(CalibrationError, match="iteration 3"):
        fitted(ready, network, tmp_path)
    assert CheckpointFile.of(tmp_path, "fit", "0" * 64).load() is None
    assert all(value.isfinite().all() for value in values(network).values())


@pytest.mark.parametrize("when", ["at once", "late"])
def test_divergence_is_refused_by_the_iteration_that_diverged(
    when: str, ready: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if when == "late":
        request.getfixturevalue("late")
    monkeypatch.setattr(fit_module, "EARLY", 2)
    differentiate = MultiStepFit._differentiate

    def diverging(self: MultiStepFit, stage: Any, segment: Any) -> Tensor:
        numbers = differentiate(self, stage, segment)
        return numbers * torch.tensor([1e3 if self.progress.iteration >= 4 else 1.0, 1.0])

    monkeypatch.setattr(MultiStepFit, "_differentiate", diverging)
    with pytest.raises(CalibrationError, match=r"diverges: loss .* after 4 iterations"):
        fitted(ready, network_of(ready), tmp_path)


def test_a_fit_whose_passes_are_replayed_ends_in_the_same_numbers(
    ready: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    memory = ActivationMemory(1, 1, 1)  # known of every network on a GPU, however small
    ready = replace(ready, context=replace(ready.context, activation_memory=memory, room=ROLLOUT_BATCH))
    plain, replaying, made = network_of(ready), network_of(ready), list[Tape]()
    with as_on_a_gpu():
        stages = fitted(ready, plain, tmp_path / "plain")
    request.getfixturevalue("late")

    def new_recorder() -> Tape:
        made.append(Tape())
        return made[-1]

    monkeypatch.setattr(fit_module, "recorder_for", lambda _device: new_recorder)
    with as_on_a_gpu():
        assert fitted(ready, replaying, tmp_path / "replayed") == stages
    for name, value in values(plain).items():
        assert torch.equal(value, values(replaying)[name]), name
    assert len(made) == 2  # passes, and weights
    assert replaying.graphs is None


def test_the_site_that_is_not_finite_is_named_though_passes_are_replayed(
    ready: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "recorder_for", lambda _device: Tape)
    network = network_of(ready)
    iterate = MultiStepFit._iterate

    def spoiled(self: MultiStepFit, stage: Any) -> float | None:
        if stage.name == "step group 0":
            network.activations["conv_out:input"].log_scale.data.fill_(torch.nan)
        return iterate(self, stage)

    monkeypatch.setattr(MultiStepFit, "_iterate", spoiled)
    with as_on_a_gpu(), pytest.raises(CalibrationError, match="NaN or infinity at site conv_out:input"):
        fitted(ready, network, tmp_path)


def test_every_stage_is_recorded_and_none_leaves_the_network_worse(ready: Measured, tmp_path: Path) -> None:
    network = network_of(ready)
    before = values(network)
    stages = fitted(ready, network, tmp_path)
    assert [stage["stage"] for stage in stages] == ["single-step warm-up", "multi-step", "step group 0", "step group 1"]
    assert [stage["iterations"] for stage in stages] == [6, 3, 1, 1]
    quality = [stage["validation_psnr"] for stage in stages]
    assert quality == sorted(quality)  # a stage ends in its best iterate, and begins with the one before it
    assert any(not torch.equal(before[name], value) for name, value in values(network).items())


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [({"gradient": "adjoint"}, [3, 3, 2]), ({"gradient": "full", "warmup": 0}, [1] * 4)],
    ids=["adjoint, single steps", "full, segments of two steps"],
)
def test_an_iteration_in_parts_has_the_gradient_and_the_loss_of_the_whole(
    settings: dict[str, Any], sizes: list[int], ready: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for three samples of one step."""
    divide = Problem.parts
    taken: list[list[int]] = []
    losses: list[float] = []

    def divided(self: Problem, *args: Any) -> list[Segment]:
        parts = divide(self, *args)
        taken.append([part.samples for part in parts])
        return parts

    def summed(_self: Share, x: Tensor) -> Tensor:
        losses.append(float(x))
        return x

    monkeypatch.setattr(Problem, "parts", divided)
    monkeypatch.setattr(Share, "sum", summed)
    changed = ready.recipe.model_copy(update={"calibrate": ready.recipe.calibrate.model_copy(update=settings)})
    found = []
    for most in (None, 3):
        taken.clear()
        losses.clear()
        share = Share()
        context = replace(ready.context, gradient_batch=most)
        fitted(replace(ready, recipe=changed, context=context), network_of(ready), tmp_path / str(most), share)
        found.append((torch.cat([each.flatten() for each in share.sent[0]]), losses[0], taken[0]))
    (whole, loss, together), (parts, loss_of_parts, apart) = found
    assert (together, apart) == ([sum(sizes)], sizes)
    assert loss_of_parts == pytest.approx(loss, rel=1e-2)  # in another batch a value may round to the next integer
    assert float((parts - whole).norm()) < 2e-2 * float(whole.norm())
