"""Damage of what only some bundles have: a correction, noise of the steps, step vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dq_toolchain.toolchain.formats.bundle_checks import STEP_VECTORS
from scripts.golden.damage import Damage, drop, of_json, put, reference, step_vectors


def _every(data: dict[str, Any], change: Callable[[Any], object]) -> None:
    for rows in data["table"]["correction"].values():
        change(rows)


def _correction(key: str, row: int, to: Any, column: int | None = None) -> Damage:
    return put("table", "correction", key, row, *(() if column is None else (column,)), to=to)


CORRECTIONS: dict[str, Damage] = {
    "correction-row-missing-in-one": of_json(lambda d: d["table"]["correction"]["output_scale"].pop()),
    "correction-row-missing-in-all": of_json(lambda d: _every(d, lambda rows: rows.pop())),
    "correction-row-too-many-in-all": of_json(lambda d: _every(d, lambda rows: rows.append(rows[0]))),
    "correction-no-rows": of_json(lambda d: _every(d, lambda rows: rows.clear())),
    "correction-channel-missing-in-one-row": of_json(lambda d: d["table"]["correction"]["input_shift"][2].pop()),
    "correction-channel-missing-in-all": of_json(lambda d: _every(d, lambda rows: [row.pop() for row in rows])),
    "correction-channel-too-many-in-all": of_json(lambda d: _every(d, lambda rows: [row.append(0.5) for row in rows])),
    "correction-no-channels": of_json(lambda d: _every(d, lambda rows: [row.clear() for row in rows])),
    "correction-number-beyond-float32": _correction("output_shift", 4, 1e39, 2),
    "correction-number-is-text": _correction("output_scale", 1, "1.0", 0),
    "correction-number-is-a-boolean": _correction("output_scale", 1, True, 0),
    "correction-number-is-a-list": _correction("input_shift", 1, [0.5], 0),
    "correction-row-is-a-number": _correction("input_shift", 3, 0.5),
    "correction-key-missing": drop("table", "correction", "output_shift"),
    "correction-key-unknown": put("table", "correction", "input_scale", to=[]),
    "correction-is-null": put("table", "correction", to=None),
    "correction-is-a-list": put("table", "correction", to=[]),
}  # fmt: skip

NOISES: dict[str, Damage] = {
    "noise-missing": reference(lambda t: t.pop("step_noise")),
    "noise-a-step-short": reference(lambda t: t.update(step_noise=t["step_noise"][1:])),
    "noise-with-nan": reference(lambda t: t["step_noise"].view(-1)[0:1].fill_(torch.nan)),
}  # fmt: skip

STEP_ROWS: dict[str, Damage] = {
    "vectors-not-listed": drop("files", STEP_VECTORS),
    "vectors-beside-the-timestep": of_json(lambda d: d["inputs"].append({"name": "timestep", "dtype": "float32", "shape": [1]})),
    "vectors-twice": of_json(lambda d: d["inputs"].append(d["inputs"][1])),
    "neither-vectors-nor-timestep": drop("inputs", 1),
    "vectors-of-another-width": put("inputs", 1, "shape", to=[1, 6]),
    "vectors-of-one-axis": put("inputs", 1, "shape", to=[1]),
    "vectors-of-three-axes": put("inputs", 1, "shape", to=[1, 1, 7]),
    "vectors-of-integers": put("inputs", 1, "dtype", to="int64"),
    "vectors-missing": step_vectors(lambda t: t.update(other=t.pop("step_vectors"))),
    "vectors-a-step-short": step_vectors(lambda t: t.update(step_vectors=t["step_vectors"][1:])),
    "vectors-a-step-too-many": step_vectors(lambda t: t.update(step_vectors=torch.cat([t["step_vectors"]] * 2))),
    "vectors-in-float64": step_vectors(lambda t: t.update(step_vectors=t["step_vectors"].double())),
    "vectors-of-shape-nothing": step_vectors(lambda t: t.update(step_vectors=torch.tensor(1.0))),
    "vectors-with-nan": step_vectors(lambda t: t["step_vectors"].view(-1)[0:1].fill_(torch.nan)),
    "vectors-with-infinity": step_vectors(lambda t: t["step_vectors"].view(-1)[-1:].fill_(torch.inf)),
}  # fmt: skip
