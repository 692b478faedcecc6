"""Replayed passes give the numbers of passes run as they are, to the bit, and leave nothing behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from benchmarks.graph_speed import Case as Speed
from benchmarks.graph_speed import as_on_a_gpu, measure

from dq_toolchain.calibrate.network import graphs
from dq_toolchain.calibrate.network.graphs import not_replayed, replayed
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.network.recorder import Work
from dq_toolchain.calibrate.network.tape import Tape
from dq_toolchain.toolchain.sampler.rollout import rollout
from tests.calibrate.network.graph_cases import CASES, Case, Figures, case, iterate, recording, same


@pytest.fixture(autouse=True)
def gpu_like() -> Iterator[None]:
    with as_on_a_gpu():
        yield


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
