"""The interpreter against torch: whole float networks, single operations, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.coreml.graph.convert import convert
from dq_toolchain.backends.coreml.graph.group_norm import LayerNormGroupNorm
from dq_toolchain.backends.coreml.interpreter.program import Function, Program, as_declared, load
from dq_toolchain.backends.coreml.interpreter.registry import OPERATIONS
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from tests import tiny


class AsUNet(nn.Module):
    """A function of the sample alone, called like a UNet."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, sample: Tensor, timestep: Tensor, **_: object) -> tuple[Tensor]:
        return (self.inner(sample) + 0 * timestep.reshape(1, 1, 1, 1),)


def _convert(
    unet: nn.Module, sample: Tensor, folder: Path, precision: Literal["fp16", "fp32"], **conditioning: Tensor
) -> Program:
    package = folder / "model.mlpackage"
    convert(unet, Call(sample, torch.tensor([500.0]), conditioning), Settings(precision=precision), package)
    return load(package)["main"]


def test_float_unet_equals_diffusers(tmp_path: Path) -> None:
    unet = tiny.tiny_unet()
    sample, label = tiny.noise(1), torch.tensor([7])
    function = _convert(unet, sample, tmp_path, "fp32", class_labels=label)
    for timestep in (1.0, 999.0):
        time = torch.tensor([timestep])
        out = function({"sample": sample, "timestep": time, "class_labels": label})["output"]
        torch.testing.assert_close(out, unet(sample, time, label).sample, rtol=1e-5, atol=1e-5)


def test_group_norm_survives_large_values_in_fp16(tmp_path: Path) -> None:
    """The converter's own form squares deviations in fp16 and gives zeros; ours does not."""
    norm = nn.GroupNorm(2, 8).eval().requires_grad_(False)
    norm.weight.mul_(1.5)
    norm.bias.add_(0.25)
    sample = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0)) * 2000
    inputs = {"sample": sample, "timestep": torch.tensor([500.0])}
    ours = _convert(AsUNet(LayerNormGroupNorm(norm)), sample, tmp_path / "ours", "fp16")(inputs)["output"]
    theirs = _convert(AsUNet(norm), sample, tmp_path / "theirs", "fp16")(inputs)["output"]
    torch.testing.assert_close(ours, norm(sample), rtol=0, atol=0.01)
    assert (theirs - norm(sample)).abs().max() > 0.5


@pytest.mark.parametrize("shape", [(1, 8, 4, 4), (2, 8, 5)])
def test_layer_norm_form_equals_group_norm(shape: tuple[int, ...]) -> None:
    norm = nn.GroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(LayerNormGroupNorm(norm)(x), norm(x), rtol=1e-5, atol=1e-5)


def _run(name: str, **inputs: Any) -> Any:
    return OPERATIONS[name](**inputs)


def test_single_operations_follow_mil() -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert _run("inverse", x=torch.zeros(1)) == pytest.approx(1e4)  # MIL's default epsilon
    assert torch.equal(
        _run(
            "slice_by_index",
            x=x,
            begin=torch.tensor([0, 1, 0, 1]),
            end=torch.tensor([1, 2, 3, 4]),
            squeeze_mask=torch.tensor([0, 1, 0, 0]),
        ),
        x[:, 1, :, 1:4],
    )
    assert torch.equal(_run("pad", x=x, pad=torch.tensor([1, 0, 0, 2])), nn.functional.pad(x, (0, 2, 1, 0)))
    assert torch.equal(_run("gather", x=x, indices=torch.tensor([[1], [0]]), axis=torch.tensor(1)), x[:, [[1], [0]]])
    half = torch.tensor([0.5, 1.5, -0.5, 300.0])
    integers = _run("quantize", input=half, scale=torch.tensor(1.0), output_dtype="int8", zero_point=torch.tensor(3))
    assert integers.tolist() == [3.0, 5.0, 3.0, 127.0]  # ties to even, then the zero_point, then the ends
    assert _run("dequantize", input=integers, scale=torch.tensor(2.0), zero_point=torch.tensor(3)).tolist() == [
        0,
        4,
        0,
        248,
    ]
    table = torch.tensor([[-1.0, 5.0], [10.0, 20.0]]).reshape(2, 1, 2, 1)
    indices = torch.tensor([[0, 1], [1, 1]])
    assert _run("constexpr_lut_to_dense", indices=indices, lut=table).tolist() == [[-1, 5], [20, 20]]
    blocks = _run(
        "constexpr_blockwise_shift_scale", data=torch.ones(2, 4), scale=torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    )
    assert blocks.tolist() == [[1, 1, 2, 2], [3, 3, 4, 4]]


def test_results_are_rounded_to_their_declared_type() -> None:
    assert as_declared(torch.tensor(1 + 2**-12), "fp16") == 1
    assert as_declared(torch.tensor(1e6), "fp16") == torch.inf
    with pytest.raises(BackendError, match="does not know the type fp8"):
        as_declared(torch.zeros(1), "fp8")


def test_unknown_operations_are_refused_by_name() -> None:
    op = SimpleNamespace(op_type="lstm", outputs=[], inputs={})
    with pytest.raises(BackendError, match="operations that the interpreter does not know: lstm"):
        Function("main", SimpleNamespace(operations=[op], inputs={}, outputs=[]))
