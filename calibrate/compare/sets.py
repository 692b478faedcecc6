"""How far the samples of an artifact are from FP32's as sets of pictures: Frechet distance and agreement of classes.

Both need a network that recognises pictures; a comparison without one goes on and says why these columns are missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dq_toolchain.toolchain.errors import ToolchainError
from dq_toolchain.toolchain.verdict.features import FeatureExtractor, class_agreement, extractor_for, frechet_distance

SET_FIGURES = ("frechet", "agreement")


def extractor_of(images: Tensor, model: Path) -> FeatureExtractor:
    """What recognises these pictures (N, C, H, W) of the model in a folder. Raises ToolchainError: nothing does."""
    return extractor_for(images, model)


def name_of(images: Tensor, model: Path) -> str | None:
    """Name of the extractor for these pictures, None if there is none."""
    try:
        return extractor_of(images, model).name
    except ToolchainError:
        return None


@dataclass(frozen=True)
class SetJudge:
    """The extractor, or why there is none; FP32 features and labels are computed once."""

    extractor: FeatureExtractor | None
    reason: str | None
    features: Tensor | None = None
    labels: Tensor | None = None

    @classmethod
    def of(cls, fp32: Tensor, model: Path) -> SetJudge:
        """The judge of samples that are paired with FP32's, (S, C, H, W)."""
        try:
            extractor = extractor_of(fp32, model)
            return cls(extractor, None, extractor.features(fp32), extractor.labels(fp32))
        except ToolchainError as error:
            return cls(None, " ".join(str(error).split()))

    @property
    def name(self) -> str | None:
        """The extractor's name, None without one."""
        return None if self.extractor is None else self.extractor.name

    def figures(self, samples: Tensor) -> dict[str, float | None]:
        """``frechet`` and ``agreement`` of (S, C, H, W) samples; None where there is no extractor."""
        if self.extractor is None or self.features is None or self.labels is None:
            return dict.fromkeys(SET_FIGURES)
        return {
            "frechet": frechet_distance(self.extractor.features(samples), self.features),
            "agreement": class_agreement(self.extractor.labels(samples), self.labels),
        }
