"""Units of reconstruction: by module type, in order of execution, every quantized layer in exactly one."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import nn

from dq_toolchain.calibrate.blocks.evaluations import Evaluations, evaluations_of
from dq_toolchain.calibrate.blocks.temporal import TEMPORAL, TemporalBlock, temporal_layers, with_temporal_unit
from dq_toolchain.calibrate.blocks.units import find_units
from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.network.insert import Prepared, QuantizedNetwork
from dq_toolchain.calibrate.ranges.observer import choose_weight_scale
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.quant.qparams import weight_type
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import rollout
from tests.tiny import conditioning_of, noise, tiny_condition_unet, tiny_unet
from tests.tiny_artifacts import tiny_artifact


@dataclass
class Tiny:
    """A quantized tiny UNet, the FP32 one it came from, and rows of its own trajectories."""

    network: QuantizedNetwork
    fp32: nn.Module
    rows: Evaluations

    def run(self, unet: nn.Module) -> torch.Tensor:
        return self.run_rows(unet, self.rows.select(slice(0, 1)))

    @staticmethod
    def run_rows(unet: nn.Module, rows: Evaluations) -> torch.Tensor:
        out: torch.Tensor = unet(rows.sample, rows.timestep, **rows.keywords, return_dict=False)[0]
        return out


def tiny(
    *,
    conditional: bool = False,
    step_groups: int = 1,
    attention: bool = False,
    guidance: float = 1.0,
    samples: int = 8,
    learned_rounding: bool = True,
    scale_factor: float = 1.0,
) -> Tiny:
    """Weights of 4 bits with heavy tails, as training leaves them, and the trajectories of four steps."""
    return copy.deepcopy(_tiny(conditional, step_groups, attention, guidance, samples, learned_rounding, scale_factor))


@cache
def _tiny(
    conditional: bool,
    step_groups: int,
    attention: bool,
    guidance: float,
    samples: int,
    learned_rounding: bool,
    scale_factor: float,
) -> Tiny:
    unet = tiny_condition_unet() if conditional else tiny_unet()
    generator = torch.Generator().manual_seed(3)
    for name, parameter in unet.named_parameters():
        if parameter.dim() > 1 and "embedding" not in name:
            parameter.mul_(torch.exp(0.5 * torch.randn(parameter.shape, generator=generator)))
    artifact, fp32 = tiny_artifact(steps=4, step_groups=step_groups, weight_bits=4, attention=attention, unet=unet)
    layers = {site.layer for site in artifact.sites if site.weight_bits is not None}
    scales = {name: choose_weight_scale(fp32.get_parameter(f"{name}.weight"), weight_type(4)) for name in layers}
    network = QuantizedNetwork(
        Prepared(network=fp32, splits=artifact.splits, sites=artifact.sites),
        artifact.scale * scale_factor,
        artifact.zero_point,
        scales,
        tuple(artifact.group_of_step),
        learned_rounding=learned_rounding,
    )
    table, conditioning = artifact.table, conditioning_of(unet, samples)
    start = noise(samples, seed=7, channels=unet.config.in_channels)
    with torch.no_grad():
        outputs: list[torch.Tensor] = []
        denoiser = Denoiser(fp32, table, conditioning, 2.0)
        latents = rollout(table, denoiser, start, on_step=lambda _k, _x, f: outputs.append(f))
    step, sample = torch.ones(table.calls, samples).nonzero(as_tuple=True)
    rows = evaluations_of(
        table, Rollouts(latents, torch.stack(outputs)), Samples(start, conditioning, None), guidance, step, sample
    )
    return Tiny(network, fp32, rows)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("temporal", [False, True])
def test_every_quantized_layer_is_in_exactly_one_unit(conditional: bool, temporal: bool) -> None:
    case = tiny(conditional=conditional, attention=conditional, samples=2)
    units = find_units(case.network.inner, case.run)
    if temporal:
        units = with_temporal_unit(case.network.inner, units)
        assert units[0].name == TEMPORAL
    members = Counter(layer for unit in units for layer in unit.layers)
    assert set(members) == set(case.network.layers)
    assert set(members.values()) == {1}
    assert len({unit.name for unit in units}) == len(units)


def test_units_are_blocks_by_type_and_single_layers_between_them_in_order_of_execution() -> None:
    case = tiny(samples=2)
    units = find_units(case.network.inner, case.run)
    names = [unit.name for unit in units]
    assert names[-1] == "conv_out"
    assert (
        names.index("conv_in")
        < names.index("down_blocks.0.resnets.0")
        < names.index("down_blocks.0.downsamplers.0.conv")
    )
    # modules list the attention first, the block runs it after its residual block
    assert names.index("down_blocks.1.resnets.0") < names.index("down_blocks.1.attentions.0")
    layers = dict(zip(names, (unit.layers for unit in units), strict=True))
    assert len(layers["mid_block.attentions.0"]) == 4
    assert {"up_blocks.0.resnets.0.conv_shortcut.parts.0", "up_blocks.0.resnets.0.conv_shortcut.parts.1"} <= set(
        layers["up_blocks.0.resnets.0"]
    )
    assert layers["time_embedding.linear_1"] == ("time_embedding.linear_1",)


def test_a_transformer_block_is_one_unit_and_its_projections_outside_are_single() -> None:
    case = tiny(conditional=True, samples=2)
    layers = {unit.name: unit.layers for unit in find_units(case.network.inner, case.run)}
    block = "mid_block.attentions.0.transformer_blocks.0"
    assert len(layers[block]) == 10
    assert layers["mid_block.attentions.0.proj_in"] == ("mid_block.attentions.0.proj_in",)
    assert not any(name.startswith(f"{block}.") for name in layers)


@pytest.mark.parametrize("conditional", [False, True])
def test_the_temporal_block_gives_what_the_residual_blocks_project(conditional: bool) -> None:
    case = tiny(conditional=conditional, samples=2)
    block, found = TemporalBlock(case.fp32), {}
    handles = [
        module.time_emb_proj.register_forward_hook(lambda _m, _a, y, i=i: found.update({i: y}))
        for i, module in enumerate(block.blocks)
    ]
    case.run(case.fp32)
    for handle in handles:
        handle.remove()
    row = case.rows.select(slice(0, 1))
    projected = block(row.sample, row.timestep, **row.keywords)
    torch.testing.assert_close(projected, torch.cat([found[i] for i in range(len(block.blocks))], 1), rtol=0, atol=0)
    assert temporal_layers(case.fp32) == temporal_layers(case.network.inner)
    assert len(temporal_layers(case.fp32)) == len(block.blocks) + 2


def test_a_unit_that_never_runs_is_reported_by_name() -> None:
    case = tiny(samples=2)
    with pytest.raises(CalibrationError, match="conv_out"):
        find_units(case.network.inner, lambda unet: None)
