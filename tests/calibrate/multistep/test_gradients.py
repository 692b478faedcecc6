"""The three gradients of a multi-step error: adjoint = full = finite differences, surrogate = its closed form."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor, nn

from dq_toolchain.calibrate.multistep.gradients import Gradient, Loss, segment_gradient
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import State
from dq_toolchain.toolchain.sampler.table import SamplerTable

STEPS = 6


class Net(nn.Module):
    """A small smooth network in float64 whose output depends on x, on the step and on its parameters."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(5, 4, generator=generator, dtype=torch.float64) * 0.6)
        self.second = nn.Parameter(torch.randn(4, 5, generator=generator, dtype=torch.float64) * 0.6)

    def forward(self, x: Tensor, k: int) -> Tensor:
        return torch.tanh(x @ self.first.T + 0.1 * k) @ self.second.T


def table_of(name: str) -> SamplerTable:
    base = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
    if name == "ddim":
        return probe(DDIMScheduler(clip_sample=False, timestep_spacing="trailing", **base), STEPS)
    if name == "dpm":
        return probe(DPMSolverMultistepScheduler(**base), STEPS)
    return probe(UniPCMultistepScheduler(**base), STEPS)


def quadratic(targets: Tensor, first: int) -> Loss:
    def loss(k: int, x: Tensor) -> tuple[Tensor, Tensor]:
        error = x - targets[k]
        return error.square().sum(), 2 * error

    return loss


def start_of(table: SamplerTable, first: int) -> State:
    generator = torch.Generator().manual_seed(7)
    history = max(len(table.a[0]), len(table.b[0]))

    def some(count: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(count))

    return State(some(min(history, first + 1)), some(min(history, first)))


def gradients(table: SamplerTable, kind: Gradient, first: int, length: int) -> tuple[float, list[Tensor]]:
    net = Net()
    targets = torch.randn(STEPS + 2, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    loss, _ = segment_gradient(table, net, start_of(table, first), first, length, quadratic(targets, first), kind)
    return float(loss), [p.grad.clone() for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["ddim", "dpm", "unipc"])
@pytest.mark.parametrize(("first", "length"), [(0, 1), (0, 4), (2, 3), (0, STEPS), (STEPS - 1, 1)])
def test_adjoint_equals_full_backpropagation(name: str, first: int, length: int) -> None:
    table = table_of(name)
    loss_full, full = gradients(table, "full", first, length)
    loss_adjoint, adjoint = gradients(table, "adjoint", first, length)
    assert loss_adjoint == pytest.approx(loss_full, rel=1e-12)
    for a, b in zip(adjoint, full, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["ddim", "dpm", "unipc"])
def test_adjoint_equals_finite_differences(name: str) -> None:
    table, net = table_of(name), Net()
    targets = torch.randn(STEPS + 2, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    loss = quadratic(targets, 0)
    start = start_of(table, 1)
    segment_gradient(table, net, start, 1, 4, loss, "adjoint")
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        assert parameter.grad is not None
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        step, values = 1e-5, []
        for sign in (1, -1):
            other = Net()
            with torch.no_grad():
                matching = dict(other.named_parameters())
                name_of = next(n for n, p in net.named_parameters() if p is parameter)
                matching[name_of].add_(sign * step * direction)
            values.append(float(segment_gradient(table, other, start, 1, 4, loss, "adjoint")[0]))
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(
            float((parameter.grad * direction).sum()), rel=1e-6
        )


def test_surrogate_equals_its_closed_form() -> None:
    """Gradient of ||x[n] + sum_j w_j (f(sg x[j]) - sg f(x[j])) - target||^2, w_j = (prod_{m>j} A_m) B_j."""
    table, net, length = table_of("ddim"), Net(), 4
    start = start_of(table, 1)
    target = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def end_only(k: int, x: Tensor) -> tuple[Tensor, Tensor]:
        error = x - target
        return (error.square().sum(), 2 * error) if k == 1 + length else (torch.zeros(()), torch.zeros_like(x))

    _, visited = segment_gradient(table, net, start, 1, length, end_only, "surrogate")
    closed = Net()
    total = visited[-1]
    for j in range(length):
        weight = table.b[1 + j][0]
        for m in range(j + 1, length):
            weight *= table.a[1 + m][0]
        output = closed(visited[j], 1 + j)
        total = total + weight * (output - output.detach())
    (total - target).square().sum().backward()
    for a, b in zip(net.parameters(), closed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_surrogate_differs_from_the_exact_gradient() -> None:
    """Otherwise the comparison of the two would compare nothing."""
    _, exact = gradients(table_of("ddim"), "adjoint", 0, 4)
    _, surrogate = gradients(table_of("ddim"), "surrogate", 0, 4)
    assert any((a - b).norm() > 1e-3 * a.norm() for a, b in zip(exact, surrogate, strict=True))


@pytest.mark.parametrize("kind", ["adjoint", "surrogate", "full"])
def test_one_step_equals_single_step_fitting(kind: Gradient) -> None:
    """n = 1: the error of x[k+1] is B times the error of the output, whatever the gradient is called."""
    table, net, k = table_of("ddim"), Net(), 2
    start = start_of(table, k)
    output_target = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    x = start.latents[0]
    target = table.advance(k, [x], [output_target], None)
    segment_gradient(table, net, start, k, 1, lambda _k, y: ((y - target).square().sum(), 2 * (y - target)), kind)
    single = Net()
    (table.b[k][0] ** 2 * (single(x, k) - output_target).square().sum()).backward()
    for a, b in zip(net.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
