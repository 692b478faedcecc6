"""Systems with parameters of their own by time: what they group, keep apart and choose, where the answer is planted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dq_toolchain.calibrate.blocks.temporal import temporal_layers
from dq_toolchain.calibrate.methods import adp_dm, pqd, ptq4dm, qvd, resolve
from dq_toolchain.toolchain.quant.qparams import activation_type, fake_quantize, range_to_qparams
from tests.calibrate.methods.conftest import Finished
from tests.calibrate.methods.test_sets import many


def discretization_of(ranges: list[float]) -> torch.Tensor:
    """(N, 3, K) errors of three sites whose values are normal, as wide at every step as said."""
    generator = torch.Generator().manual_seed(0)
    shrink = max(ranges) * 2.0 ** (-torch.arange(adp_dm.CANDIDATES) / adp_dm.PER_OCTAVE)
    kind, found = activation_type(8), []
    for width in ranges:
        x = (torch.rand(3, 1, 2000, generator=generator) * 2 - 1) * width
        scale, zero_point = range_to_qparams(-shrink, shrink, kind, "symmetric")
        restored = fake_quantize(x, scale[:, None], zero_point[:, None], kind)
        found.append((restored - x).abs().pow(adp_dm.NORM).mean(2))
    return torch.stack(found) / torch.stack(found).mean()


@pytest.mark.parametrize("boundary", [4, 10, 17])
def test_the_search_finds_a_planted_boundary(boundary: int) -> None:
    error = discretization_of([3.0] * boundary + [0.5] * (20 - boundary))
    function, candidate = adp_dm.search(error, 2)
    assert adp_dm.runs(function.tolist()) == (tuple(range(boundary)), tuple(range(boundary, 20)))
    wide, narrow = candidate[function[0]], candidate[function[-1]]
    assert (narrow > wide).all()  # later candidates are smaller ranges


def test_steps_that_are_alike_share_a_function_also_apart() -> None:
    error = discretization_of([3.0] * 5 + [0.5] * 5 + [3.0] * 5)
    function, candidate = adp_dm.search(error, 3)
    shared = adp_dm._errors_with(error, candidate)
    own = shared[torch.arange(15), function]
    assert (own <= shared.min(1).values + 1e-6).all()  # no step would be better off with another function
    assert (candidate[function[0]] == candidate[function[12]]).all()


def test_structural_risk_picks_what_is_like_all_steps_and_holds_errors() -> None:
    latents = torch.cat([torch.zeros(8, 6, 4), torch.ones(2, 6, 4) * 5])
    latents = latents + 0.1 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    likeness, flat = adp_dm.likeness(latents), torch.ones(10)
    assert likeness[0, 1] > 2 * likeness[0, 9]
    counts = adp_dm.least_risk(likeness, flat, 40)
    assert counts.sum() == 40
    assert 0.1 < counts[8:].sum() / 40 < 0.3  # a fifth of the steps is of the other kind
    risky = flat.clone()
    risky[3] = 5.0
    assert adp_dm.least_risk(likeness, risky, 40)[3] > 2 * counts[3]


def test_the_artifact_has_the_groups_and_every_range_covers_its_steps_inputs(finished: Finished) -> None:
    before = finished.artifact
    after, record = adp_dm.group_steps(before, finished.trajectories)
    function = record["adp_dm"]["function_of_step"]
    assert after.step_groups == adp_dm.runs(function)
    assert after.scale.shape == (len(after.step_groups), len(before.sites))
    assert after.layers is before.layers
    assert finished.final_error(after) < 1.2 * finished.final_error(before)
    chosen = adp_dm.by_structural_risk(finished.trajectories)
    assert chosen.shape == finished.trajectories.targets.outputs.shape[:2]
    assert chosen.any(1).all()


def test_a_quantizer_that_keeps_steps_apart_gives_up_what_is_alike_at_all_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    features = 0.02 * torch.randn(10, 2, 16, generator=generator)
    features[..., 0] = 8.0  # one channel, as large at every step: it makes the range wide and tells nothing
    kind = activation_type(8)
    scale, zero_point, score = qvd.most_apart(features, kind, "symmetric")
    whole, none = range_to_qparams(features.min(), features.max(), kind, "symmetric")
    wide = fake_quantize(features, whole, none, kind)
    kept = fake_quantize(features, scale, zero_point, kind)
    assert score == qvd.discriminability(features, kept)
    assert score > qvd.discriminability(features, wide)
    assert scale < 0.2 * whole
    assert qvd.discriminability(features, features) == 0.0
    assert qvd.discriminability(features, features[:1].expand_as(features)) == pytest.approx(-1.0)


def test_only_the_temporal_block_gets_other_parameters(finished: Finished) -> None:
    before = finished.artifact
    after, record = qvd.keep_apart(before, finished.trajectories)
    temporal = set(temporal_layers(finished.context.prepared.network))
    assert set(record["temporal_discriminability"]) == temporal
    for index, site in enumerate(before.sites):
        if site.layer not in temporal:
            assert torch.equal(after.scale[:, index], before.scale[:, index])
    single = replace(before, step_groups=((0,), (1,), (2,), (3,)), scale=before.scale[[0, 0, 1, 1]],
                     zero_point=before.zero_point[[0, 0, 1, 1]])  # fmt: skip
    assert torch.equal(qvd.keep_apart(single, finished.trajectories)[0].scale, single.scale)  # nothing to tell apart


def test_divisors_bring_ranges_nearer_and_leave_the_largest() -> None:
    ranges = torch.tensor([4.0, 1.0, 0.25, 0.0])
    found = qvd.divisor(ranges)
    assert found[0] == 1.0
    assert (found > 0).all()
    after = ranges / found
    assert after[:3].max() / after[:3].min() == pytest.approx(4.0)
    assert qvd.divisor(torch.zeros(3)).tolist() == pytest.approx([qvd.SMALLEST**0.5] * 3)


def test_smoothing_is_of_both_convolutions_of_every_block(finished: Finished) -> None:
    unet = finished.context.model.network
    divisors = qvd.integrate_ranges(unet, finished.context.table, finished.trajectories.samples)
    assert {name.rpartition(".")[2] for name in divisors} == {"conv1", "conv2"}
    assert all(bool((row > 0).all()) and row.max() == 1.0 for row in divisors.values())


def test_pqd_draws_times_as_ptq4dm_and_drops_activations(finished: Finished) -> None:
    wide = many(finished.trajectories, 100, 50)
    assert torch.equal(pqd.time_aware(wide), ptq4dm.normal_times(*ptq4dm.CODE)(wide))
    assert resolve("pqd").blocks == {"joint": True, "drop": pqd.DROP}
