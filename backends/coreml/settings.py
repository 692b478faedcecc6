"""What [coreml] of a recipe and the flags of `export` set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dq_toolchain.backends.common.qdq.settings import QDQSettings
from dq_toolchain.toolchain.recipe.sections import Renamed


class Settings(QDQSettings):
    """[coreml]"""

    EXAMPLE = "--step-groups-as input"
    RENAMED = {"runtime_scales": Renamed("step_groups_as", {"input": True, "methods": False})}  # noqa: RUF012, a ClassVar

    ios: Literal[17, 18, 26] = Field(
        default=18, description='oldest iOS that runs the package; 17 needs step_groups_as = "input"'
    )
    chunks: Literal[1, 2] = Field(default=1, description="packages that the network is cut into")
