"""Rollouts in batches: to the bit those of each batch alone, and held once while they are made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.data.rollouts import Rollouts, parallel_rollouts, rollouts_of
from dq_toolchain.calibrate.data.samples import Samples, draw
from dq_toolchain.toolchain.models.activations import Ledger
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.table import SamplerTable
from tests.tiny_artifacts import tiny_artifact

BATCH, SAMPLES = 4, 30

Run = Callable[[Samples], Rollouts]


class Halving(nn.Module):
    """A network of one operation."""

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (sample * (0.5 + timestep.view(-1, 1, 1, 1) / 1e4),)


@pytest.fixture
def table() -> SamplerTable:
    return tiny_artifact()[0].table


@pytest.fixture(params=[rollouts_of, partial(parallel_rollouts, window=2)], ids=["step by step", "steps at once"])
def run(request: pytest.FixtureRequest, table: SamplerTable) -> Run:
    return partial(request.param, Halving(), table, guidance=1.0, batch=BATCH, device=torch.device("cpu"))


def samples_of(table: SamplerTable, count: int = SAMPLES) -> Samples:
    return draw((3, 16, 16), table, Conditioning(), range(count))


def test_batches_are_those_of_each_alone(run: Run, table: SamplerTable) -> None:
    samples = samples_of(table, 10)
    whole = run(samples)
    alone = [run(samples.select(slice(begin, begin + 2))) for begin in range(0, 10, 2)]
    assert whole.latents.shape == (table.calls + 1, 10, 3, 16, 16)
    assert torch.equal(whole.latents, torch.cat([each.latents for each in alone], dim=1))
    assert torch.equal(whole.outputs, torch.cat([each.outputs for each in alone], dim=1))
    assert torch.equal(whole.latents[0], samples.start)


def test_beside_the_result_there_is_one_batch_at_a_time(run: Run, table: SamplerTable) -> None:
    samples = samples_of(table)
    with Ledger() as ledger:
        made = run(samples)
    result = made.latents.nbytes + made.outputs.nbytes
    assert result <= ledger.peak < result * (1 + 4 * BATCH / SAMPLES)
