"""The digit classifier that ships with the embedded model: a small convolutional network and its file.

Its penultimate features and labels tell ``features`` how far generated digits are from those of the FP32 model.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ModelError

FILE = Path(__file__).parent / "digits" / "classifier.safetensors"
CLASSES = 10
WIDTHS = (16, 32, 32, 64, 64)
STRIDES = (1, 2, 1, 2, 1)


class DigitClassifier(nn.Module):
    """Five 3x3 convolutions, global mean, one linear layer; about 71 000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in zip((1, *WIDTHS[:-1]), WIDTHS, STRIDES, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(WIDTHS[-1], CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28) float32 in [-1, 1] -> (N, 64) float32, what the last layer sees."""
        pooled: Tensor = self.body(images).mean((2, 3))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28) float32 in [-1, 1] -> (N, 10) logits."""
        logits: Tensor = self.head(self.features(images))
        return logits


def load_classifier(path: Path = FILE) -> DigitClassifier:
    """The shipped classifier in eval mode, gradients off.

    Raises:
        ModelError: the file is missing, damaged or of another architecture.
    """
    model = DigitClassifier()
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {' '.join(str(error).split())}; install the package again or run "
                         "scripts/train_classifier.py") from error
    expected = {n: tensor for n, tensor in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    wrong = sorted(set(state) ^ set(expected)) or sorted(n for n in state if state[n].shape != expected[n].shape)
    if wrong:
        raise ModelError(f"{path} is not the digit classifier: {wrong[0]!r} does not fit; install the package again or "
                         "run scripts/train_classifier.py")
    model.load_state_dict(state, strict=False)  # BatchNorm's training counters are not shipped
    return model.eval().requires_grad_(False)
