"""The settings that all these targets have."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dq_toolchain.toolchain.recipe.sections import TargetSection


class QDQSettings(TargetSection):
    """Fields of a target's ``Settings``; the target adds its own."""

    precision: Literal["fp16", "fp32"] = Field(default="fp16", description="arithmetic between the integer layers")
    step_groups_as: Literal["methods", "input"] = Field(
        default="methods",
        description="methods: one function per step group, sharing the weights; input: one function, to which a step group's "
        "scales are an input",
    )
    lut: bool = Field(default=False, description="weights of 4 bits and fewer as int8 tables, for the Neural Engine")
    layout: Literal["plain", "neural-engine"] = Field(
        default="plain",
        description="neural-engine: transformers as (B, C, 1, S) with 1x1 convolutions and one product per head",
    )
    quantize_outputs: bool = Field(default=False, description="integers behind every layer too, Apple's own form")
