"""The stand-in for CUDA graphs is as strict as they are: what would go wrong on a GPU goes wrong here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.network.recorded import GradientPass, Gradients, PlainPass
from dq_toolchain.calibrate.network.tape import Tape


def test_a_replay_computes_with_what_is_in_the_places_of_the_inputs() -> None:
    double = PlainPass(Tape(), lambda x: (2 * x).relu_().flatten(), (torch.ones(2, 2),))
    for value in (3.0, -1.0):
        x = torch.full((2, 2), value)
        assert torch.equal(double((x,)), (2 * x).relu().flatten())


def test_a_number_that_python_hands_to_an_operation_stays_what_it_was() -> None:
    factor = [2.0]
    scaled = PlainPass(Tape(), lambda x: factor[0] * x, (torch.ones(1),))
    factor[0] = 5.0
    assert float(scaled((torch.ones(1),))) == 2.0


def test_a_tensor_that_is_replaced_is_not_seen_and_one_that_is_changed_is() -> None:
    held = {"weight": torch.ones(1)}
    scaled, first = PlainPass(Tape(), lambda x: held["weight"] * x, (torch.ones(1),)), held["weight"]
    held["weight"] = torch.full((1,), 3.0)
    assert float(scaled((torch.ones(1),))) == 1.0
    first.fill_(4.0)
    assert float(scaled((torch.ones(1),))) == 4.0


def test_what_is_read_before_the_first_replay_is_no_number() -> None:
    made: list[Tensor] = []

    def work() -> None:
        made[:] = [torch.ones(2) + 1]

    (replay,) = Tape().record((work,))
    assert bool(made[0].isnan().all())
    replay()
    assert torch.equal(made[0], torch.full((2,), 2.0))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x * float(x.sum()), "reads a number"),
        (lambda x: x if bool(x.sum() > 0) else -x, "reads a number"),
        (lambda x: x[x > 0], "shape depends on numbers"),
        (lambda x: x * torch.rand_like(x), "draws random numbers"),
        (lambda x: x * torch.tensor([1.0, 2.0]), "number on the host"),
    ],
)
def test_what_a_gpu_cannot_record_is_refused(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(RuntimeError, match=reason):
        PlainPass(Tape(), function, (torch.ones(2),))


def test_rows_by_integers_are_recorded() -> None:
    table = torch.arange(6.0).view(3, 2)
    rows = PlainPass(Tape(), lambda index: table[index], (torch.tensor([0]),))
    assert torch.equal(rows((torch.tensor([2]),)), table[2:])


def test_gradients_are_added_to_those_there_are() -> None:
    weight, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    gradients = Gradients([weight, unused])
    weight.grad = torch.full((2,), 10.0)
    gradients.settle()
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    squared = GradientPass(Tape(), lambda x: (weight * x).square(), (x,), [weight, unused], gradients)
    assert torch.equal(weight.grad, torch.full((2,), 10.0))  # recording leaves no trace
    for value in (1.0, 3.0):
        given = torch.full((2,), value)
        assert torch.equal(squared.forward((given,)), given.square())
        of_input = squared.backward(torch.ones(2))
        assert of_input is not None
        assert torch.equal(of_input, 2 * given)
    assert torch.equal(weight.grad, torch.full((2,), 10.0 + 2 * 1 + 2 * 9))
    assert unused.grad is not None
    assert not unused.grad.any()
