"""Predicted errors at the sampler's end against measured ones, layer by layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.bits import sensitivity
from dq_toolchain.calibrate.bits.sensitivity import final_errors, rounded
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.measure import shared_rollouts
from dq_toolchain.calibrate.ranges.observer import choose_weight_scale
from dq_toolchain.toolchain.quant.qparams import weight_type
from tests.calibrate.conftest import tiny_recipe

PROBES = 32


def _run(model: Path, out: Path, **sampler: object) -> Trajectories:
    recipe = tiny_recipe(model, out, sampler={"steps": 4, **sampler}, calibrate={"samples": PROBES})
    return Trajectories(context := setup(recipe), shared_rollouts(context))


def _measured(run: Trajectories, name: str, bits: int) -> float:
    """Mean squared error of the final latents with this layer's weights rounded."""
    weight = run.context.network.get_parameter(f"{name}.weight")
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(rounded(kept, choose_weight_scale(kept, weight_type(bits)), bits))
    found = shared_rollouts(run.context).latents[-1]
    with torch.no_grad():
        weight.copy_(kept)
    return float((found - run.targets.latents[-1]).square().mean())


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_predictions_are_the_errors_that_rounding_makes(guidance: float, tiny_model: Path, tmp_path: Path) -> None:
    """Within a factor of two for each layer (32 probes: a quarter is one standard deviation)."""
    run = _run(tiny_model, tmp_path, guidance=guidance)
    names = [
        "conv_in",
        "down_blocks.0.resnets.0.conv1",
        "mid_block.resnets.0.conv2",
        "conv_out",
        "time_embedding.linear_2",
    ]
    scales = {
        name: {
            bits: choose_weight_scale(run.context.network.get_parameter(f"{name}.weight"), weight_type(bits))
            for bits in (4, 8)
        }
        for name in names
    }
    predicted = final_errors(run, scales, PROBES)
    for bits in (4, 8):
        measured = {name: _measured(run, name, bits) for name in names}
        for name in names:
            assert measured[name] / 2 < predicted[name][bits] < measured[name] * 2, (name, bits)


def test_the_network_is_left_as_it_was(tiny_model: Path, tmp_path: Path) -> None:
    run = _run(tiny_model, tmp_path)
    before = {name: tensor.clone() for name, tensor in run.context.network.state_dict().items()}
    weight = run.context.network.get_parameter("conv_in.weight")
    final_errors(run, {"conv_in": {4: choose_weight_scale(weight, weight_type(4))}}, 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in run.context.network.state_dict().items())
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in run.context.network.parameters()
    )
    assert not weight._post_accumulate_grad_hooks


def test_sums_are_where_the_network_computes(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the weights are meanwhile: with ``--offload`` those of blocks are on the host until their block is at work."""
    run, elsewhere, seen = _run(tiny_model, tmp_path), torch.device("meta"), list[torch.device]()

    def read(x: Tensor, _name: str) -> Tensor:
        seen.append(x.device)
        return torch.zeros(x.shape, dtype=x.dtype)

    monkeypatch.setattr(sensitivity, "sweep", lambda *_: None)
    monkeypatch.setattr(sensitivity, "read_on_host", read)
    weight = run.context.network.get_parameter("conv_in.weight")
    scales = {"conv_in": {4: choose_weight_scale(weight, weight_type(4))}}
    final_errors(replace(run, context=replace(run.context, device=elsewhere)), scales, 1)
    assert seen == [elsewhere]
