"""Recording a module's calls: the same as a plain hook sees, and no work done beyond the module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks.capture import capture
from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.toolchain.errors import CalibrationError
from tests.calibrate.blocks.test_units import tiny

CPU = torch.device("cpu")
BLOCK = "mid_block.attentions.0.transformer_blocks.0"


def plain(unet: nn.Module, module: nn.Module, rows: Evaluations) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """One pass over all rows with an ordinary hook."""
    seen: list[Any] = []
    handle = module.register_forward_hook(
        lambda _m, args, kwargs, out: seen.append((args, kwargs, out)), with_kwargs=True
    )
    with torch.no_grad():
        unet(rows.sample, rows.timestep, **rows.keywords, return_dict=False)
    handle.remove()
    args, kwargs, out = seen[0]
    return args, kwargs, out


@pytest.mark.parametrize(("conditional", "name"), [(False, "up_blocks.0.resnets.0"), (True, BLOCK), (False, "conv_in")])
def test_captured_calls_equal_those_of_a_plain_hook(conditional: bool, name: str) -> None:
    case = tiny(conditional=conditional, samples=4)
    module, rows = case.fp32.get_submodule(name), case.rows.select(slice(0, 10))
    args, kwargs, out = plain(case.fp32, module, rows)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    found = capture(case.fp32, module, rows, order.split(3), device=CPU, inputs=True, outputs=True)
    assert len(found.args) == len(args)
    assert found.kwargs.keys() == kwargs.keys()
    named = ((found.kwargs[key], kwargs[key]) for key in kwargs)
    for got, wanted in (*zip(found.args, args, strict=True), *named):
        if isinstance(wanted, Tensor):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
        else:
            assert got is wanted
    assert found.output is not None
    torch.testing.assert_close(found.output, out, rtol=1e-4, atol=1e-5)
    args, kwargs = found.call({key: record[[2, 5]] for key, record in found.records.items()})
    torch.testing.assert_close(module(*args, **kwargs), out[[2, 5]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outputs", [False, True])
def test_the_pass_ends_as_soon_as_the_module_has_run(outputs: bool) -> None:
    case = tiny(samples=2)
    ran: list[str] = []
    for name, layer in case.fp32.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda *_, name=name: ran.append(name))
    name = "down_blocks.0.resnets.0"
    capture(
        case.fp32, case.fp32.get_submodule(name), case.rows, [torch.arange(4)], device=CPU, inputs=True, outputs=outputs
    )
    assert "conv_in" in ran
    assert (f"{name}.conv2" in ran) is outputs
    assert not any(other.startswith(("down_blocks.0.downsamplers", "mid_block", "up_blocks")) for other in ran)
    assert all(not module._forward_pre_hooks for module in case.fp32.modules())


def test_inner_outputs_are_recorded_and_steps_are_told() -> None:
    case = tiny(samples=3)
    name = "up_blocks.0.resnets.0"
    told: list[int] = []
    parts = {
        part: case.fp32.get_submodule(f"{name}.{part}")
        for part in ("conv_shortcut.parts.0", "conv_shortcut.parts.1", "conv2")
    }
    batches = [part for step in range(4) for part in (case.rows.step == step).nonzero()[:, 0].split(2)]
    found = capture(
        case.fp32, case.fp32.get_submodule(name), case.rows, batches, device=CPU, inner=parts, set_step=told.append
    )
    assert found.output is None
    assert found.args == ()
    assert told == [0, 0, 1, 1, 2, 2, 3, 3]
    for part, module in parts.items():
        _, _, wanted = plain(case.fp32, module, case.rows)
        torch.testing.assert_close(found.inner[part], wanted, rtol=1e-4, atol=1e-5)


def test_a_module_that_is_not_called_or_has_no_rows_is_an_error() -> None:
    case = tiny(samples=2)
    with pytest.raises(CalibrationError, match="never calls"):
        capture(case.fp32, nn.Linear(1, 1), case.rows, [torch.arange(2)], device=CPU, inputs=True)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Identity()

        def forward(self, sample: Tensor, timestep: Tensor, **_: object) -> Tensor:
            out: Tensor = self.inside(sample.sum())
            return out

    odd = Odd()
    with pytest.raises(CalibrationError, match="first axis is not the sample"):
        capture(odd, odd.inside, case.rows, [torch.arange(2)], device=CPU, inputs=True)
