"""The estimate, from shapes alone, against what calibrations of published sizes took."""

from __future__ import annotations

import pytest
from benchmarks.full_calibration import said


@pytest.mark.parametrize(("method", "measured"), [("mse", {1: 1.03, 4: 1.45, 20: 5.0}), ("accuquant", {1: 3.24})])
def test_transformers_at_full_size_need_what_was_measured(method: str, measured: dict[int, float]) -> None:
    """With ``offload``, of memory of no file (docs/RESULTS.md, "Transformers at full size"), from shapes alone: a byte for each
    weight."""
    found = {blocks: said("flux.2-klein-4b", blocks, 128, method) for blocks in (1, 4, 20)}
    for blocks, wanted in measured.items():
        assert found[blocks] == pytest.approx(wanted, rel=0.2)
    weights = (3_875_544_576 - 563_086_080) / 2**30
    assert found[20] - found[1] == pytest.approx(1.1 * weights, rel=0.05)
