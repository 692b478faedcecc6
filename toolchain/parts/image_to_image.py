"""The key ``image_to_image`` of pipeline.json: the encoder of pictures, and where the sampler can begin with one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dq_toolchain.toolchain.sampler.starts import ROUNDS, Start

VAE_ENCODER = "vae_encoder"
OUTPUTS = (("mean",), ("mean", "deviation"))
"""Of the encoder: what it draws a latent from, or the latent itself."""
KEY = "image_to_image"


@dataclass(frozen=True, kw_only=True)
class ImageToImage:
    """Attributes:
    channels, height, width: of the picture that the encoder takes.
    outputs: one of OUTPUTS. start_rounds: of ROUNDS.
    starts: by step count a start for each step, the noisiest first. program: of the encoder, as of a text encoder.
    """

    channels: int
    height: int
    width: int
    outputs: tuple[str, ...]
    start_rounds: str
    starts: Mapping[int, tuple[Start, ...]]
    program: str | None = None

    @property
    def deviates(self) -> bool:
        """The encoder gives a deviation, and the latent is drawn."""
        return "deviation" in self.outputs

    def of(self, steps: int | None) -> tuple[Start, ...]:
        """The starts of a step count; None is the only one there is. Raises KeyError."""
        if steps is None:
            (only,) = self.starts.values()
            return only
        return self.starts[steps]

    def holding(self, counts: Collection[int]) -> ImageToImage:
        """With the starts of these step counts alone."""
        return replace(self, starts={count: rows for count, rows in self.starts.items() if count in counts})

    def to_json(self) -> dict[str, Any]:
        starts = {str(count): [each.to_json() for each in rows] for count, rows in self.starts.items()}
        return {
            "program": self.program, "channels": self.channels, "height": self.height, "width": self.width,
            "outputs": list(self.outputs), "start_rounds": self.start_rounds, "starts": starts,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ImageToImage:
        """What ``to_json`` wrote. Raises KeyError, TypeError, ValueError, AttributeError or SamplerError."""
        found = cls(
            channels=int(data["channels"]),
            height=int(data["height"]),
            width=int(data["width"]),
            outputs=tuple(map(str, data["outputs"])),
            start_rounds=str(data["start_rounds"]),
            starts={int(count): tuple(map(Start.from_json, rows)) for count, rows in data["starts"].items()},
            program=data["program"],
        )
        if found.outputs not in OUTPUTS or found.start_rounds not in ROUNDS or not found.starts:
            raise ValueError(
                f"{KEY} of outputs {found.outputs}, {found.start_rounds!r}, {len(found.starts)} step counts"
            )
        wrong = next((count for count, rows in found.starts.items() if len(rows) != count), None)
        if wrong is not None:
            raise ValueError(f"{KEY} holds {len(found.starts[wrong])} starts of {wrong} steps")
        return found
