"""Calibration sets, finite sets and smoothing: who is chosen, and that FP32 stays FP32."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dq_toolchain.calibrate.blocks.temporal import temporal_layers
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.methods import eda_dm, ptq4dm, qncd, tfmq
from dq_toolchain.calibrate.network.insert import prepare
from dq_toolchain.toolchain.quant.qparams import activation_type, qparams_to_range
from dq_toolchain.toolchain.recipe.sections import QuantizeSection
from tests.calibrate.conftest import with_room
from tests.calibrate.methods.conftest import Finished


def many(trajectories: Trajectories, calls: int, count: int) -> Trajectories:
    """The same with made-up trajectories of another size."""
    targets = replace(trajectories.targets, outputs=torch.zeros(calls, count, 1, 1, 1))
    return replace(trajectories, targets=targets)


def test_ptq4dm_leans_towards_the_image_and_the_papers_set_is_narrow(finished: Finished) -> None:
    wide = many(finished.trajectories, 100, 2000)

    def steps(chosen: Tensor) -> Tensor:
        return chosen.nonzero()[:, 0].float()

    code = steps(ptq4dm.normal_times(*ptq4dm.CODE)(wide))
    paper = steps(ptq4dm.normal_times(*ptq4dm.PAPER)(wide))
    assert 0.95 * ptq4dm.PAIRS < len(code) <= ptq4dm.PAIRS
    assert code.mean() > 50  # step 0 is the noisiest
    assert code.min() == 0
    assert code.max() == 99
    assert 20 * paper.std() < code.std() * 20 < 2000
    assert paper.std() < 4 < code.std()
    assert torch.equal(ptq4dm.normal_times(*ptq4dm.CODE)(wide), ptq4dm.normal_times(*ptq4dm.CODE)(wide))


def test_eda_dm_prefers_dense_and_various_steps(finished: Finished) -> None:
    alike = torch.ones(6, 8)
    assert eda_dm.step_weights(alike).unique().numel() == 1
    features = torch.cat([torch.ones(5, 8) + 0.01 * torch.randn(5, 8), -torch.ones(1, 8)])
    assert eda_dm.step_weights(features).argmax() == 5  # nothing else looks like it: variety
    dense = torch.cat([torch.ones(5, 8) + 0.01 * torch.randn(5, 8), 30 * torch.ones(1, 8)])
    assert eda_dm.step_weights(dense).argmin() == 5  # same direction, far from all others
    chosen = eda_dm.dense_and_various(finished.trajectories)
    assert chosen.shape == finished.trajectories.targets.outputs.shape[:2]
    assert chosen.any(1).all()


def test_the_finite_set_covers_each_step_in_the_temporal_block_and_leaves_the_rest(finished: Finished) -> None:
    before = finished.artifact
    after, record = tfmq.finite_set(before, finished.trajectories)
    assert after.step_groups == tuple((k,) for k in range(before.table.calls))
    temporal = set(temporal_layers(finished.context.prepared.network))
    assert temporal == set(record["finite_set"])
    for index, site in enumerate(before.sites):
        if site.layer not in temporal:
            assert torch.equal(after.scale[:, index], before.scale[list(before.group_of_step), index])
    low, high = tfmq._extremes(finished.trajectories)
    for index, site in enumerate(before.sites):
        if site.layer in temporal:
            ends = qparams_to_range(after.scale[:, index], after.zero_point[:, index], activation_type(site.bits))
            slack = after.scale[:, index]
            assert (ends[0] - slack <= low[site.layer]).all()
            assert (ends[1] + slack >= high[site.layer]).all()


def test_the_finite_set_covers_all_samples_however_few_run_at_once(finished: Finished) -> None:
    run, rows = finished.trajectories, list[int]()
    with run.context.network.register_forward_pre_hook(lambda _network, args: rows.append(len(args[0]))):
        whole, few = (tfmq._extremes(each) for each in (run, replace(run, context=with_room(run.context, 2))))
    assert rows == [len(run.samples)] * run.calls + [2] * (run.calls * len(run.samples) // 2)
    torch.testing.assert_close(few, whole)  # products in FP32 depend on the batch by their rounding


def test_smoothing_keeps_the_function_and_names_second_convolutions(finished: Finished) -> None:
    unet = finished.context.model.network
    samples, table = finished.trajectories.samples, finished.context.table
    divisors = qncd.smoothing(unet, table, samples)
    assert divisors
    assert all(name.endswith(".conv2") and bool((row > 0).all()) for name, row in divisors.items())

    def run(network: torch.nn.Module) -> Tensor:
        time = torch.full((2,), table.timesteps[0])
        out: Tensor = network(samples.start[:2], time, class_labels=torch.tensor([1, 2]), return_dict=False)[0]
        return out

    spread = {name: row * torch.linspace(0.5, 2.0, len(row)) for name, row in divisors.items()}
    prepared = prepare(unet, QuantizeSection(), run, spread)
    with torch.no_grad():
        torch.testing.assert_close(run(prepared.network), run(unet), rtol=1e-4, atol=1e-5)
    assert prepared.smoothed == tuple(divisors)
    assert any(site.layer.endswith(".conv2.conv") for site in prepared.sites)
