"""What [executorch] of a recipe and the flags of `export` set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dq_toolchain.toolchain.recipe.sections import Renamed, TargetSection


class Settings(TargetSection):
    """[executorch]"""

    EXAMPLE = "--step-groups-as methods"
    RENAMED = {"form": Renamed("step_groups_as", {"input": "sentinel", "methods": "static"})}  # noqa: RUF012, a ClassVar

    step_groups_as: Literal["methods", "input"] = Field(
        default="input",
        description="input: one method, to which a step group's ranges are an input, floats between the layers; "
        "methods: one method per step group, integers behind every layer too",
    )
