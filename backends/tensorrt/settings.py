"""What [tensorrt] of a recipe and the flags of `export` set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dq_toolchain.toolchain.recipe.sections import Renamed, TargetSection


class Settings(TargetSection):
    """[tensorrt]"""

    EXAMPLE = "--jetpack 7"
    RENAMED = {"mode": Renamed("step_groups_as", {"methods": "static", "input": "ratio"})}  # noqa: RUF012, a ClassVar

    step_groups_as: Literal["methods", "input"] = Field(
        default="methods",
        description="methods: one graph and engine per step group; input: one for all, to which a step group's scales are an "
        "input, as ratios to a power of two",
    )
    jetpack: Literal[6, 7] = Field(
        default=6, description="oldest JetPack whose TensorRT builds the engines: 6 has 10.3; 7 has 10.13 and later"
    )
    precision: Literal["fp16", "fp32"] | None = Field(
        default=None,
        description="arithmetic between the integer layers; default: fp32 for JetPack 6, whose builder picks fp16 itself, fp16 "
        "for JetPack 7",
    )
    check_build: bool = Field(default=False, description="compile with NVIDIA's own compiler here, on the CPU")

    @property
    def graph_precision(self) -> Literal["fp32", "fp16"]:
        """``precision``, or what the JetPack generation asks for."""
        return self.precision or ("fp32" if self.jetpack == 6 else "fp16")
