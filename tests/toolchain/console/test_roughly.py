"""Estimates are no more exact than they are known."""

from __future__ import annotations

import pytest

from dq_toolchain.toolchain.console.progress import roughly


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (7.4, "7 s"), (44, "40 s"), (91, "2 min"), (350, "6 min"), (3600, "60 min"), (9000, "2.5 h")],
)
def test_an_estimate_is_rounded(seconds: float, text: str) -> None:
    assert roughly(seconds) == text
