"""What a budget may say."""

from __future__ import annotations

import pytest

from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.budget import Budget
from dq_toolchain.toolchain.recipe.loading import load_recipe


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("size=0.2", Budget(size=0.2)),
        ("size<=.2", Budget(size=0.2)),
        ("psnr>=30", Budget(psnr=30.0)),
        ("size=0.3,psnr>=30", Budget(0.3, 30.0)),
        (" psnr >= 30.5 , size = 1 ", Budget(1.0, 30.5)),
    ],
)
def test_bounds_are_read(text: str, wanted: Budget) -> None:
    assert Budget.parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "small",
        "size=0",
        "size=1.5",
        "size>=0.2",
        "psnr<=30",
        "psnr=30",
        "size=0.1,size=0.2",
        "size=x",
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(RecipeError, match=r"allowed are size=SHARE .* psnr>=DECIBELS"):
        load_recipe(None, {"quantize": {"budget": text}})
