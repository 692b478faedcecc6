"""Every float function that a diffusers network may hold is the same function in ExecuTorch's runtime."""

from __future__ import annotations

import functools

import pytest
import torch
from diffusers.models.activations import GEGLU, GELU, ApproximateGELU, SwiGLU
from torch import Tensor, nn

from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.executorch.graph.program import export, lower_methods
from dq_toolchain.backends.executorch.graph.rewrites import rewrite
from dq_toolchain.backends.executorch.runtime.device import Device

WIDTH = 16


class Net(nn.Module):
    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (self.function(sample),)


def functions() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "silu": nn.SiLU(), "mish": nn.Mish(), "relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(),
        "gelu": nn.GELU(), "gelu_tanh": nn.GELU(approximate="tanh"), "softmax": nn.Softmax(dim=-1),
        "diffusers_gelu": GELU(WIDTH, WIDTH), "diffusers_gelu_tanh": GELU(WIDTH, WIDTH, approximate="tanh"),
        "diffusers_gelu_sigmoid": ApproximateGELU(WIDTH, WIDTH), "geglu": GEGLU(WIDTH, WIDTH), "swiglu": SwiGLU(WIDTH, WIDTH),
        "layer_norm": nn.LayerNorm(WIDTH), "layer_norm_plain": nn.LayerNorm(WIDTH, elementwise_affine=False),
        "rms_norm": nn.RMSNorm(WIDTH, eps=1e-6),
        "leaky_relu": nn.LeakyReLU(0.3), "elu": nn.ELU(0.5), "softplus": nn.Softplus(beta=2), "hardswish": nn.Hardswish(),
    }  # fmt: skip


FEW = ("gelu", "gelu_tanh", "softmax")
"""Also in the fast run: the two that the runtime took for one another, and what every attention has."""


@functools.cache
def device(names: tuple[str, ...]) -> Device:
    """Functions as methods of one program, made as export makes them."""
    call = Call(torch.zeros(1, 64, WIDTH), torch.zeros(1), {})
    exported = {name: export(rewrite(Net(functions()[name])), call) for name in names}
    return Device(lower_methods(exported), tuple(exported))


@torch.no_grad()
@pytest.mark.parametrize(
    ("among", "name"),
    [
        *((FEW, name) for name in FEW),
        *(pytest.param(tuple(functions()), name, marks=pytest.mark.slow) for name in functions()),
    ],
    ids=lambda value: value if isinstance(value, str) else f"of {len(value)}",
)
def test_a_function_is_the_same_in_the_runtime(among: tuple[str, ...], name: str) -> None:
    x = 3 * torch.randn(1, 64, WIDTH, generator=torch.Generator().manual_seed(1))
    expected = functions()[name].double()(x.double())
    apart = (device(among)(name, (x, torch.zeros(1))).double() - expected).abs().max() / expected.abs().max()
    assert float(apart) < 2e-6
