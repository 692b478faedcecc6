"""What [toy] of a recipe and the flags of `export` set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dq_toolchain.toolchain.recipe.sections import Renamed, TargetSection


class Settings(TargetSection):
    """[toy]"""

    EXAMPLE = "--flavour sour"
    RENAMED = {"taste": Renamed("flavour", {"sweet": "sugar", "sour": "lemon"})}  # noqa: RUF012, a ClassVar

    flavour: Literal["sweet", "sour"] = Field(default="sweet", description="what the program tastes of")
    step_groups_as: Literal["input"] = Field(default="input", description="input: a table of scales in the program")
    depth: int = Field(default=3, ge=1, le=9, description="how deep the program lies")
    polish: bool = Field(default=True, description="leave the program as it is")
