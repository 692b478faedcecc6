"""The table as data: JSON round trip, one step of the recurrence, and what it refuses to hold."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.sampler.table import SamplerTable

TABLE = SamplerTable(
    scheduler="AnyScheduler",
    prediction_type="epsilon",
    timesteps=(999.0, 166.58332824707031),
    a=((0.5, 0.0), (1 / 3, -0.25)),
    b=((2.0, 0.0), (1e-7, 4.0)),
    c=(0.0, 0.125),
    input_scale=(1.0, 0.1),
    init_noise_sigma=14.6,
)


def test_json_round_trip_is_equal_bit_for_bit() -> None:
    text = json.dumps(TABLE.to_json(), allow_nan=False)
    assert SamplerTable.from_json(json.loads(text)) == TABLE


def test_advance_is_the_recurrence() -> None:
    x, past_x, f, past_f, noise = torch.randn(5, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    got = TABLE.advance(1, [x, past_x], [f, past_f], noise)
    torch.testing.assert_close(got, x / 3 - 0.25 * past_x + 1e-7 * f + 4 * past_f + 0.125 * noise)


def test_advance_ignores_history_that_has_no_coefficient() -> None:
    x, f, nan = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), torch.nan)
    short = TABLE.advance(0, [x], [f])
    assert torch.equal(short, TABLE.advance(0, [x, nan, nan], [f, nan, nan], nan))
    assert torch.equal(short, 0.5 * x + 2 * f)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_advance_stays_in_the_dtype_of_the_latents(dtype: torch.dtype) -> None:
    x = torch.ones(1, 1, 2, 2, dtype=dtype)
    assert TABLE.advance(1, [x, x], [x, x], x).dtype == dtype


@pytest.mark.parametrize(
    ("latents", "outputs", "noise", "missing"),
    [
        (1, 2, True, "latents"),
        (2, 1, True, "outputs"),
        (0, 2, True, "latents"),
        (2, 2, False, "noise"),
    ],
)
def test_advance_names_what_is_missing(latents: int, outputs: int, noise: bool, missing: str) -> None:
    x = torch.ones(1, 1, 2, 2)
    with pytest.raises(SamplerError, match=missing):
        TABLE.advance(1, [x] * latents, [x] * outputs, x if noise else None)


def test_stochastic_means_that_some_call_adds_noise() -> None:
    assert TABLE.stochastic
    assert not replace(TABLE, c=(0.0, 0.0)).stochastic


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"prediction_type": "noise"}, "prediction_type"),
        ({"timesteps": (), "a": (), "b": (), "c": (), "input_scale": ()}, "no timesteps"),
        ({"c": (0.0,)}, "c has 1 rows"),
        ({"input_scale": (1.0, 1.0, 1.0)}, "input_scale has 3 rows"),
        ({"a": ((1.0,), (1.0, 0.0))}, "rows of a"),
        ({"b": ((), ())}, "rows of b"),
        ({"a": ((1.0, 0.5), (1.0, 0.0))}, "before call 0"),
        ({"b": ((1.0, 0.0), (1.0, float("nan")))}, "not finite"),
        ({"timesteps": (float("inf"), 0.0)}, "not finite"),
        ({"init_noise_sigma": 0.0}, "init_noise_sigma"),
    ],
)
def test_a_table_that_cannot_be_run_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SamplerError, match=text):
        replace(TABLE, **change)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("c"),
        lambda data: data.update(extra=1),
        lambda data: data.update(c=[0.0, "1"]),
        lambda data: data.update(a=[1.0, 2.0]),
        lambda data: data.update(b=None),
        lambda data: data.update(scheduler=3),
        lambda data: data.update(c=[False, True]),
        lambda data: data.update(init_noise_sigma=10**400),
    ],
)
def test_damaged_json_is_refused_in_one_line(damage: Any) -> None:
    data = TABLE.to_json()
    damage(data)
    with pytest.raises(SamplerError, match=r"\Asampler table[^\n]*\Z"):
        SamplerTable.from_json(data)


def test_json_that_is_not_an_object_is_refused() -> None:
    with pytest.raises(SamplerError, match="got list"):
        SamplerTable.from_json([1.0])  # type: ignore[arg-type]
