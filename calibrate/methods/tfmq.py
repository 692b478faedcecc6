"""TFMQ-DM: the temporal block reconstructed by itself, with activation parameters for every step (finite set).

Huang et al. 2024, arXiv 2311.16503: TIAR is ``BlockOptions.temporal``; finite set calibration gives
each activation of the temporal block a (scale, zero_point) per timestep from its smallest and largest value there. On a device a
step's parameters are a step group's, so the artifact gets one step group per step, alike in all other sites. The paper's code keeps
parameters of every activation per step; the paper, and this, those of the temporal block.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dq_toolchain.calibrate.blocks.temporal import check_temporal, temporal_layers
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.fitting.blocks import BLOCKS
from dq_toolchain.calibrate.methods.base import Method, Record
from dq_toolchain.calibrate.methods.groups import with_step_groups
from dq_toolchain.calibrate.methods.ranges import MSE
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.qparams import activation_type, range_to_qparams
from dq_toolchain.toolchain.sampler.denoiser import outputs_at

SAMPLES = 32


def finite_set(artifact: Artifact, trajectories: Trajectories) -> tuple[Artifact, Record]:
    """The artifact with one step group per step, and in the temporal block the parameters of that step."""
    low, high = _extremes(trajectories.first(SAMPLES))
    groups = list(artifact.group_of_step)
    scale, zero_point = artifact.scale[groups].clone(), artifact.zero_point[groups].clone()
    for index, site in enumerate(artifact.sites):
        if site.layer in low and site.operand == "input":
            found = range_to_qparams(low[site.layer], high[site.layer], activation_type(site.bits), site.scheme)
            scale[:, index], zero_point[:, index] = found
    each = tuple((k,) for k in range(len(groups)))
    return with_step_groups(artifact, each, scale, zero_point), {"finite_set": sorted(low)}


@torch.no_grad()
def _extremes(trajectories: Trajectories) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """layer -> (N,) smallest and largest input at every step."""
    context, calls = trajectories.context, trajectories.calls
    fp32, ends, current = context.network, dict[tuple[str, int], Tensor](), [0]
    names, never = temporal_layers(fp32), torch.zeros(2, device=context.device)

    def keep(name: str, x: Tensor) -> None:
        (low, high), before = torch.aminmax(x), ends.get((name, current[0]))
        if before is not None:
            low, high = torch.minimum(low, before[0]), torch.maximum(high, before[1])
        ends[name, current[0]] = torch.stack([low, high])

    def set_step(k: int) -> None:
        current[0] = k

    handles = (
        fp32.get_submodule(name).register_forward_pre_hook(lambda _module, inputs, name=name: keep(name, inputs[0]))
        for name in names
    )
    exact = replace(trajectories.exact(set_step), batch=context.rollout_batch)
    with hooks(handles):
        outputs_at(exact, trajectories.each_latent())
    steps = [torch.stack([ends.get((name, k), never) for k in range(calls)]) for name in names]
    found = read_on_host(torch.stack(steps), "ranges of the temporal block")
    low, high = found.unbind(2)
    return dict(zip(names, low, strict=True)), dict(zip(names, high, strict=True))


TFMQ = Method(
    "tfmq",
    "Huang et al. 2024, arXiv 2311.16503",
    MSE,
    fit=(BLOCKS,),
    blocks={"temporal": True},
    check_network=check_temporal,
    finish=(finite_set,),
    needs_timestep="quantizes the time embedding",
)

METHODS = (TFMQ,)
