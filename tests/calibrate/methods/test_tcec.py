"""TCEC finds the factors of this and the previous output that make up the latent's error, and takes that out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from dq_toolchain.calibrate.methods import tcec
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.table import SamplerTable
from tests.calibrate.methods.conftest import Finished
from tests.calibrate.methods.test_methods import small


def test_planted_factors_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    q, mixed = torch.randn(2, 32, 3, 8, 8, generator=generator)
    p = 0.8 * q + 0.6 * mixed  # two outputs in a row are alike
    now, b = torch.tensor([0.1, -0.2, 0.0]), -0.4
    error = b * now.view(-1, 1, 1) * q - 0.05 * p
    found, before = tcec.factors(error, q, p, b)
    assert before == pytest.approx(0.05, rel=0.1)
    torch.testing.assert_close(found, now, rtol=0.05, atol=5e-3)
    alone, none = tcec.factors(b * now.view(-1, 1, 1) * q, q, None, b)
    torch.testing.assert_close(alone, now / (1 + tcec.RIDGE))
    assert none == 0.0


def test_without_an_error_nothing_changes_nor_where_an_output_has_no_part() -> None:
    q = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    now, before = tcec.factors(torch.zeros_like(q), q, q.flip(0), -0.4)
    assert now.tolist() == [0.0, 0.0]
    assert before == 0.0
    table = probe(DDIMScheduler(clip_sample=False), 4)
    same = tcec.compensated(table, 1, now, before)
    assert (same.a, same.b) == (table.a, table.b)
    assert same.correction is not None
    assert same.correction.output_scale[1] == (1.0, 1.0)
    assert tcec.factors(q, q, None, 0.0)[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("table", [probe(DDIMScheduler(clip_sample=False), 4), probe(DPMSolverMultistepScheduler(), 4)])
def test_the_table_takes_out_what_was_found(table: SamplerTable) -> None:
    generator = torch.Generator().manual_seed(0)
    x, older, q, p = torch.randn(4, 2, 2, 4, 4, generator=generator)
    now = torch.tensor([0.1, -0.2])
    changed = tcec.compensated(table, 2, now, 0.05)
    assert changed.correction is not None
    end = changed.advance(2, [x, older], [changed.correction.after(q, 2), p])
    wanted = table.advance(2, [x, older], [q, p]) - table.b[2][0] * now.view(-1, 1, 1) * q + 0.05 * p
    torch.testing.assert_close(end, wanted)


def test_a_planted_gain_is_undone(finished: Finished) -> None:
    damaged = finished.damaged(1.15, 0.0)
    corrected, record = tcec.compensate(damaged, finished.trajectories)
    assert finished.final_error(finished.artifact) < 0.2 * finished.final_error(damaged)
    assert finished.final_error(corrected) < 1.1 * finished.final_error(finished.artifact)  # what it was before
    assert record["tcec"]["output_scale"][0] == pytest.approx([1 / 1.15], abs=0.03)  # later ones share it with P
    again, _ = tcec.compensate(corrected, finished.trajectories)  # stands on the first
    assert finished.final_error(again) < 1.1 * finished.final_error(corrected)


def test_an_error_of_an_earlier_step_is_taken_out_by_later_ones(finished: Finished) -> None:
    """The first step of this table goes too far: only the latent shows it, no output of a later step is wrong."""
    artifact, table = finished.artifact, finished.artifact.table
    first = replace(table, b=((1.2 * table.b[0][0],), *table.b[1:]))
    shifted = replace(artifact, table=first)
    corrected, _ = tcec.compensate(shifted, finished.trajectories)
    assert finished.final_error(corrected) < 0.5 * finished.final_error(shifted)


def test_it_stacks_on_accuquant(tiny_model: Path, tmp_path: Path) -> None:
    tables: list[Any] = []
    for name in ("accuquant", "accuquant+tcec", "accuquant+q-drift"):
        made = calibrated(small(tiny_model, tmp_path, name), Reporter(quiet=True), tmp_path / "work")
        tables.append((made.artifact.table, made.artifact.scale))
    (plain, scale), (compensated, same), (drifting, alike) = tables
    assert torch.equal(scale, same)
    assert torch.equal(scale, alike)
    assert plain.correction is None
    assert compensated.correction is not None
    assert len(compensated.b[0]) == 2
    assert drifting.correction is not None
