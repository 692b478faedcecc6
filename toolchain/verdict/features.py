"""How far two sets of pictures are apart as sets: Frechet distance of features, agreement of classes.

Judged by the classifier in the model's folder, by the digit classifier that ships, or by Inception, behind one interface.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import ToolchainError
from dq_toolchain.toolchain.models.classifier import FILE, NAME, Classifier, load_classifier

BATCH = 256
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


class FeatureExtractor(Protocol):
    """Images are (N, C, H, W) float32 in [-1, 1]; values outside are clamped."""

    name: str

    def features(self, images: Tensor) -> Tensor:
        """(N, D) float32."""
        ...

    def labels(self, images: Tensor) -> Tensor:
        """(N,) int64, the most likely class."""
        ...


class ClassifierFeatures:
    """A classifier of the project: its penultimate features and its classes; images are of the size it was trained on.

    Args:
        classifier: default: the digit classifier that ships.
    """

    def __init__(self, classifier: Classifier | None = None) -> None:
        self.classifier = load_classifier() if classifier is None else classifier
        architecture = self.classifier.architecture
        self.name = f"{architecture.name}, {architecture.widths[-1]} features"

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        return torch.cat([self.classifier.features(x) for x in torch.split(self._ready(images), BATCH)])

    @torch.no_grad()
    def labels(self, images: Tensor) -> Tensor:
        return torch.cat([self.classifier(x).argmax(1) for x in torch.split(self._ready(images), BATCH)])

    def _ready(self, images: Tensor) -> Tensor:
        architecture = self.classifier.architecture
        if tuple(images.shape[1:]) != architecture.shape:
            raise ToolchainError(
                f"the {architecture.name} takes images of {'x'.join(map(str, architecture.shape))}, got "
                f"{'x'.join(map(str, images.shape[1:]))}; use the Inception features for other images"
            )
        return images.to(torch.float32).clamp(-1, 1)


class InceptionFeatures:
    """Inception v3 as FID uses it: 2048 features; images are (N, 1 or 3, H, W).

    Needs torch-fidelity and its weight file, which is never downloaded from here: a run must not depend on a network.
    Raises:
        ToolchainError: either is missing.
    """

    name = "Inception v3, 2048 features"

    def __init__(self) -> None:
        weights = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
        if importlib.util.find_spec("torch_fidelity") is None or not weights.is_file():
            raise ToolchainError(
                f"Inception features need `pip install torch-fidelity` and its weight file {weights} "
                "(see torch-fidelity's releases)"
            )
        from torchmetrics.image.fid import NoTrainInceptionV3  # takes seconds

        self.network = NoTrainInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(weights))

    @torch.no_grad()
    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = ((images.to(torch.float32).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
        rows = [self.network._torch_fidelity_forward(x) for x in torch.split(pixels, 32)]
        return torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])

    def features(self, images: Tensor) -> Tensor:
        return self._run(images)[0]

    def labels(self, images: Tensor) -> Tensor:
        return self._run(images)[1].argmax(1)


def extractor_for(images: Tensor, folder: Path | None = None) -> FeatureExtractor:
    """What judges these images: the classifier in the model's folder, else the one that ships, else Inception.

    Args:
        images: (N, C, H, W); a classifier made for another size is passed over.
        folder: the model's; may hold ``classifier.safetensors``.
    Raises:
        ToolchainError: a classifier's file is damaged, or Inception is needed and cannot be had.
    """
    own = [] if folder is None or not (folder / NAME).is_file() else [folder / NAME]
    for classifier in map(load_classifier, (*own, FILE)):
        if tuple(images.shape[1:]) == classifier.architecture.shape:
            return ClassifierFeatures(classifier)
    return InceptionFeatures()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets of features, (N, D) and (M, D); float64 inside.

    Source: Heusel et al. 2017, equation 6; differs: the trace of sqrt(A B) is the nuclear norm of the product of the
    centred features, sum of singular values of X_a X_b^T / sqrt((N-1)(M-1)), which needs no matrix square root, is
    symmetric in a and b and stays exact when there are fewer samples than features.
    Raises:
        ToolchainError: fewer than two samples, different D, or NaN.
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ToolchainError(
            f"a Frechet distance needs two sets of at least 2 feature vectors of one length, got "
            f"{tuple(a.shape)} and {tuple(b.shape)}; give more images"
        )
    x, y = a.to(torch.float64), b.to(torch.float64)
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ToolchainError("features hold NaN or infinity; the images they come from are not finite")
    means = (x.mean(0) - y.mean(0)).square().sum()
    x, y = (x - x.mean(0)) / (len(x) - 1) ** 0.5, (y - y.mean(0)) / (len(y) - 1) ** 0.5
    # sqrt(A B) has the singular values of X Y^T; QR first, so that the matrix decomposed is at most D x D
    cross = torch.linalg.svdvals(_triangle(x) @ _triangle(y).T).sum()
    return max(0.0, float(means + x.square().sum() + y.square().sum() - 2 * cross))


def _triangle(x: Tensor) -> Tensor:
    reduced: Tensor = torch.linalg.qr(x, mode="r").R
    return reduced


def class_agreement(a: Tensor, b: Tensor) -> float:
    """Share of equal labels of two paired sets, (N,) int64 each."""
    return float((a == b).to(torch.float64).mean())


def accuracy(extractor: FeatureExtractor, images: Tensor, labels: Tensor) -> float:
    """Share of images (N, C, H, W) that are recognised as the class asked for, (N,) int64."""
    return class_agreement(extractor.labels(images), labels)
