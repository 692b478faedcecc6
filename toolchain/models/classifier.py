"""The classifiers that judge samples: a plain convolutional network whose architecture stands in its weight file.

Their penultimate features and labels tell ``features`` how far generated pictures are from those of the FP32 model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from dq_toolchain.toolchain.disk.files import read_tensors_and_metadata
from dq_toolchain.toolchain.errors import ArtifactError, ModelError

NAME = "classifier.safetensors"
FILE = Path(__file__).parent / "digits" / NAME
KEY = "architecture"
"""The metadata entry that holds the architecture as JSON."""
REMEDY = "restore the file or train it again (scripts/models/train_classifier.py)"


class Architecture(BaseModel):
    """What a classifier is called and how it is built; two lists, one entry per convolution."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=80)
    channels: int = Field(ge=1, le=16)
    size: int = Field(ge=1, le=1024)
    widths: tuple[int, ...] = Field(min_length=1, max_length=64)
    strides: tuple[int, ...]
    classes: int = Field(ge=2, le=10_000)

    @model_validator(mode="after")
    def _lists_fit(self) -> Architecture:
        if len(self.strides) != len(self.widths):
            raise ValueError(f"{len(self.widths)} widths and {len(self.strides)} strides")
        if not all(1 <= width <= 4096 for width in self.widths) or not set(self.strides) <= {1, 2}:
            raise ValueError("widths are 1-4096 and strides 1 or 2")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.channels, self.size, self.size


class Classifier(nn.Module):
    """3x3 convolutions with batch norm and ReLU, global mean, one linear layer."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture, widths = architecture, architecture.widths
        layers: list[nn.Module] = []
        inputs = (architecture.channels, *widths[:-1])
        for before, after, stride in zip(inputs, widths, architecture.strides, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], architecture.classes)

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1] -> (N, D) float32, what the last layer sees."""
        pooled: Tensor = self.body(images).mean((2, 3))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1] -> (N, classes) logits."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def weights(self) -> dict[str, Tensor]:
        """What a file holds: everything but BatchNorm's training counters."""
        return {n: tensor for n, tensor in self.state_dict().items() if not n.endswith("num_batches_tracked")}


def load_classifier(path: Path = FILE) -> Classifier:
    """A classifier in eval mode, float32, gradients off; default: the digit classifier that ships.

    Raises:
        ModelError: the file is missing or damaged, does not say what it holds, or holds something else.
    """
    try:
        state, metadata = read_tensors_and_metadata(path, REMEDY)
    except ArtifactError as error:
        raise ModelError(str(error)) from error
    architecture = _architecture(path, metadata)
    with torch.device("meta"):  # a damaged file may claim any size; nothing is allocated before it has proven it
        expected = Classifier(architecture).weights()
    wrong = sorted(set(state) ^ set(expected)) or [n for n in sorted(state) if not _fits(state[n], expected[n])]
    if wrong:
        raise ModelError(
            f"{path} is not the classifier of its metadata: {wrong[0]!r} is missing, unknown, or no finite "
            f"float16 or float32 of the right shape; {REMEDY}"
        )
    model = Classifier(architecture)
    model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in state.items()}, strict=False)
    return model.eval().requires_grad_(False)


def _architecture(path: Path, metadata: dict[str, str]) -> Architecture:
    try:
        return Architecture.model_validate_json(metadata.get(KEY, ""))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (KEY, *first["loc"])))
        raise ModelError(
            f"{path}: metadata {place!r} does not describe a classifier: {first['msg']}; allowed are "
            f"{', '.join(Architecture.model_fields)} as the training script writes them; {REMEDY}"
        ) from error


def _fits(tensor: Tensor, expected: Tensor) -> bool:
    known = tensor.dtype in (torch.float16, torch.float32) and tensor.shape == expected.shape
    return known and bool(torch.isfinite(tensor).all())
