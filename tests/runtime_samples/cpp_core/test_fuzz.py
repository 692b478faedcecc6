"""Changed files through the readers, under the sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime_samples.cpp_core.conftest import SOURCE, run

CORPUS = SOURCE / "fuzz" / "corpus"


def _fuzz(folder: Path, runs: int, seed: int) -> str:
    done = run(folder / "dq-fuzz", "--corpus", CORPUS, "--runs", str(runs), "--seed", str(seed))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_twenty_thousand_inputs(sanitized: Path) -> None:
    out = _fuzz(sanitized, 20_000, 1)
    assert out.startswith("20000 inputs")
    assert int(out.split()[2]) > 500, f"the mutator must leave enough files valid to reach the far side: {out}"


def test_a_seed_gives_the_same_inputs(sanitized: Path) -> None:
    assert _fuzz(sanitized, 2_000, 3) == _fuzz(sanitized, 2_000, 3) != _fuzz(sanitized, 2_000, 4)


@pytest.mark.slow
def test_a_million_inputs(sanitized: Path) -> None:
    assert _fuzz(sanitized, 1_000_000, 1).startswith("1000000 inputs")
