"""The correction around the network: its formula, where it is applied, its JSON, and all that it refuses to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.disk.files import seal
from dq_toolchain.toolchain.errors import ArtifactError, SamplerError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.listing import JSON
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.table import SamplerTable
from tests.tiny import noise, scheduler
from tests.tiny_artifacts import tiny_artifact, tiny_reference

CORRECTION = Correction(
    input_shift=((1 / 3, -0.1), (0.25, 1e-7), (0.0, 2.0), (5e-324, -0.0)),
    output_scale=((1.1, 0.9), (1.0, 0.3), (2 / 3, -1.0), (0.7, 1.7)),
    output_shift=((0.05, 0.15), (-0.4, 0.0), (1e10, 0.1), (-1 / 7, 0.2)),
)
TABLE = probe(scheduler(), 4)


def test_identity_changes_nothing_bit_for_bit() -> None:
    identity = Correction.identity(4, 3)
    assert (identity.calls, identity.channels) == (4, 3)
    x = noise(2, channels=3)
    for k in range(4):
        for given in (identity.before(x, k), identity.after(x, k)):
            assert torch.equal(given.view(torch.int32), x.view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_before_and_after_are_the_formula(dtype: torch.dtype) -> None:
    """Numbers are rounded to the dtype first, then each product and each sum."""
    x = noise(3, channels=2).to(dtype)
    for k in range(4):
        shift, scale, offset = (
            torch.tensor(rows[k], dtype=dtype)
            for rows in (CORRECTION.input_shift, CORRECTION.output_scale, CORRECTION.output_shift)
        )
        before, after = CORRECTION.before(x, k), CORRECTION.after(x, k)
        assert before.dtype == after.dtype == dtype
        for c in range(2):
            assert torch.equal(before[:, c], x[:, c] + shift[c])
            product = x[:, c] * scale[c]
            assert torch.equal(after[:, c], product + offset[c])


def test_json_comes_back_bit_for_bit() -> None:
    read = Correction.from_json(json.loads(json.dumps(CORRECTION.to_json(), allow_nan=False)))
    assert read == CORRECTION
    assert repr(read) == repr(CORRECTION)  # which tells -0.0 from 0.0


def test_a_table_carries_it_and_its_json_has_no_such_key_without() -> None:
    table = replace(TABLE, correction=CORRECTION)
    assert SamplerTable.from_json(json.loads(json.dumps(table.to_json()))) == table
    assert "correction" not in TABLE.to_json()
    assert SamplerTable.from_json(TABLE.to_json()).correction is None
    assert table.uncorrected == TABLE


Edit = Callable[[dict[str, Any]], object]
DAMAGE: dict[str, tuple[Edit, str]] = {
    "key missing": (lambda d: d.pop("output_scale"), "must have exactly the keys"),
    "key unknown": (lambda d: d.update(input_scale=[[1.0, 1.0]] * 4), "must have exactly the keys"),
    "row missing in one": (lambda d: d["input_shift"].pop(), "must have as many rows"),
    "number missing in a row": (lambda d: d["output_scale"][2].pop(), "many numbers"),
    "number missing in all of one": (lambda d: [row.pop() for row in d["output_shift"]], "many numbers"),
    "no rows": (lambda d: [rows.clear() for rows in d.values()], "must have as many rows"),
    "no channels": (lambda d: [row.clear() for rows in d.values() for row in rows], "many numbers"),
    "rows are null": (lambda d: d.update(input_shift=None), "expected lists of numbers, got None"),
    "a row is a number": (lambda d: d["input_shift"].__setitem__(0, 1.0), "expected lists of numbers"),
    "a number is text": (lambda d: d["output_scale"][0].__setitem__(0, "1"), "must be a number"),
    "a number is a boolean": (lambda d: d["output_scale"][0].__setitem__(0, True), "must be a number"),
    "a number is null": (lambda d: d["output_scale"][0].__setitem__(0, None), "must be a number"),
    "not a number": (lambda d: d["output_shift"][0].__setitem__(1, float("nan")), "not finite"),
    "infinite": (lambda d: d["input_shift"][3].__setitem__(1, float("-inf")), "not finite"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_json_is_refused_in_one_line(name: str) -> None:
    edit, text = DAMAGE[name]
    data = CORRECTION.to_json()
    edit(data)
    for read in (
        lambda: Correction.from_json(data),
        lambda: SamplerTable.from_json(TABLE.to_json() | {"correction": data}),
    ):
        with pytest.raises(SamplerError, match=rf"\Acorrection[^\n]*{text}[^\n]*calibrate[^\n]*\Z"):
            read()


@pytest.mark.parametrize("data", [None, [], 1.0, "x"])
def test_json_that_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(SamplerError, match=f"got {type(data).__name__}"):
        SamplerTable.from_json(TABLE.to_json() | {"correction": data})


@pytest.mark.parametrize("calls", [3, 5])
def test_a_table_refuses_another_number_of_rows(calls: int) -> None:
    with pytest.raises(SamplerError, match=f"correction has {calls} rows for 4 timesteps"):
        replace(TABLE, correction=Correction.identity(calls, 1))


class Formula(nn.Module):
    """Answers by element, so that batches change nothing; keeps what it was given."""

    def forward(self, x: Tensor, time: Tensor, class_labels: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        self.given = x
        return (torch.tanh(x + class_labels.view(-1, 1, 1, 1)) * (1 + time.view(-1, 1, 1, 1) / 1000),)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_denoiser_applies_it_around_guidance(guidance: float) -> None:
    x, network = noise(3, channels=2), Formula()
    conditioning = Conditioning(
        {"class_labels": torch.tensor([0.0, 1.0, 2.0])}, {"class_labels": torch.full((3,), 9.0)}
    )
    corrected = Denoiser(network, replace(TABLE, correction=CORRECTION), conditioning, guidance)
    plain = Denoiser(network, TABLE, conditioning, guidance)
    for k in range(4):
        shifted = CORRECTION.before(x, k)
        wanted = CORRECTION.after(plain(shifted, k), k)
        assert torch.equal(corrected(x, k), wanted)
        assert torch.equal(network.given[:3], shifted)
        assert not torch.equal(wanted, plain(x, k))


def test_an_artifact_keeps_it_and_refuses_that_of_other_latents(tmp_path: Path) -> None:
    artifact, unet = tiny_artifact()
    reference = tiny_reference(artifact, unet, seeds=1)
    correction = Correction.identity(4, 1)
    replace(artifact, table=replace(artifact.table, correction=correction)).save(tmp_path, reference)
    assert Artifact.load(tmp_path).table.correction == correction
    data = json.loads((tmp_path / JSON).read_text())
    data["table"]["correction"] = Correction.identity(4, 3).to_json()
    (tmp_path / JSON).write_text(json.dumps(seal(data)))
    with pytest.raises(
        ArtifactError, match=r"correction has 3 channels, the latents have 1; run `dq-toolchain calibrate` again"
    ):
        Artifact.load(tmp_path)
    data["table"]["correction"] = Correction.identity(3, 1).to_json()
    (tmp_path / JSON).write_text(json.dumps(seal(data)))
    with pytest.raises(
        ArtifactError, match=r"calibration\.json is damaged: SamplerError .*3 rows for 4 timesteps.*calibrate"
    ):
        Artifact.load(tmp_path)
