"""The same seed draws the same noise as torch, bit for bit."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts.golden.noise import draws, is_standard, vectors

from tests.runtime_samples.cpp_core.conftest import GOLDEN

CASES: list[dict[str, Any]] = json.loads((GOLDEN / "noise.json").read_text())["cases"]
WITH_AVX2 = pytest.mark.skipif(not is_standard(), reason="torch draws other bits on a processor without AVX2")


def randn(folder: Path, seed: int | str, sizes: list[int]) -> list[np.ndarray]:
    """Successive draws of the C++ generator."""
    done = subprocess.run(
        [folder / "dq-parts", "randn", str(seed), *map(str, sizes)], capture_output=True, check=True, timeout=120
    )
    return np.split(np.frombuffer(done.stdout, "<f4"), np.cumsum(sizes)[:-1])


@pytest.mark.parametrize("case", CASES, ids=[case["seed"] for case in CASES])
def test_golden_vectors(case: dict[str, Any], sanitized: Path) -> None:
    wanted = case["draws"]
    for got, row in zip(randn(sanitized, case["seed"], [row["size"] for row in wanted]), wanted, strict=True):
        assert got[: len(row["first"])].tolist() == row["first"]
        assert got[-len(row["last"]) :].tolist() == row["last"]
        assert hashlib.sha256(got.tobytes()).hexdigest() == row["sha256"]


@WITH_AVX2
def test_they_are_what_torch_draws() -> None:
    assert vectors()["cases"] == CASES


@WITH_AVX2
def test_other_seeds_and_sizes(sanitized: Path) -> None:
    chance = random.Random(1)
    for _ in range(10):
        seed, sizes = chance.getrandbits(64), [chance.randrange(1, 3000) for _ in range(20)]
        for got, wanted in zip(randn(sanitized, seed, sizes), draws(seed, tuple(sizes)), strict=True):
            assert got.tobytes() == wanted.numpy().tobytes()
