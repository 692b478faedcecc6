"""Rows of evaluations: each with the latent, the timestep and the conditioning of its pair, which is held once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.blocks.evaluations import Evaluations, evaluations_of
from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.toolchain.models.activations import Ledger
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from tests.tiny_artifacts import tiny_artifact

SAMPLES, ROWS = 3, 40
TOKENS = (50, 20)


def told(offset: float) -> dict[str, Tensor]:
    """Keywords that name their sample."""
    number = torch.arange(SAMPLES) + offset
    return {"prompt": number.view(-1, 1, 1).expand(-1, *TOKENS).clone(), "label": number}


def drawn(guidance: float) -> tuple[Evaluations, Tensor, Tensor]:
    """Rows of ROWS pairs, and these: step, sample."""
    table = tiny_artifact()[0].table
    latents = torch.randn(table.calls + 1, SAMPLES, 1, 2, 2)
    samples = Samples(latents[0], Conditioning(told(0.0), told(100.0)), None)
    step, sample = torch.arange(ROWS) % table.calls, torch.arange(ROWS) % SAMPLES
    return evaluations_of(table, Rollouts(latents, latents[1:]), samples, guidance, step, sample), step, sample


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_every_row_has_the_keywords_of_its_sample(guidance: float) -> None:
    rows, step, sample = drawn(guidance)
    wanted = sample.float() if guidance == 1.0 else torch.cat([sample, sample + 100]).float()
    assert torch.equal(rows.step, step if guidance == 1.0 else step.repeat(2))
    assert torch.equal(rows.keywords["label"], wanted)
    assert torch.equal(rows.keywords["prompt"], wanted.view(-1, 1, 1).expand(-1, *TOKENS))
    index = torch.randperm(len(rows))[:7]
    given = rows.select(index).to(torch.device("cpu"))
    assert torch.equal(given.keywords["label"], wanted[index])
    assert torch.equal(given.sample, rows.sample[index])
    assert torch.equal(torch.cat([part.keywords["label"] for part in rows.batches(9)]), wanted)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_conditioning_is_not_copied_for_each_row(guidance: float) -> None:
    """All rows together take less than a quarter of what a prompt for each would."""
    drawn(guidance)
    with Ledger() as ledger:
        rows = drawn(guidance)[0]
        given = sum(value.nbytes for each in (told(0.0), told(0.0)) for value in each.values())
    assert ledger.in_use - given < len(rows) * 4 * TOKENS[0] * TOKENS[1] / 4
