"""Made-up parts of a pipeline: a tokenizer of a few words, and what answers from formulas in the place of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from scripts.golden.images import encoded

CHANNELS = 4
"""Of latents."""
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ["a", "red", "ball", "on", "grass", "blue", "dog", "photo", "of", "the", "high", "quality", "cat"]
WIDTHS = {"text_encoder": 5, "text_encoder_2": 7, "text_encoder_3": 9}


def tokenizer_of(pad: str) -> CLIPTokenizer:
    """CLIP's kind with a vocabulary of bytes and the words above: small, and every text has tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = ["".join(parts[:2])]
    merges = list(dict.fromkeys(merges))
    tokens = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *dict.fromkeys("".join(pair) for pair in merges),
        BEGIN,
        END,
    ]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges=merges, pad_token=pad
    )


class Parts:
    """Answers from formulas, in float64 and rounded, and keeps what it was asked and what it answered."""

    def __init__(self, encoders: Mapping[str, Sequence[str]], channels: int, image: Sequence[str] = ()) -> None:
        """Args: ``encoders``: outputs by name. ``channels``: of the picture. ``image``: outputs of the picture's encoder."""
        self.encoders, self.channels, self.image = encoders, channels, image
        self.kept: dict[str, list[Tensor]] = {}

    def _keep(self, name: str, tensor: Tensor) -> Tensor:
        self.kept.setdefault(name, []).append(tensor)
        return tensor

    def encoder(self, name: str, ids: Tensor) -> dict[str, Tensor]:
        """ids (1, T) -> hidden (1, T, D), pooled (1, D)."""
        self._keep(f"{name}.ids", ids)
        axis = torch.arange(WIDTHS[name], dtype=torch.float64)
        hidden = torch.sin(ids.double()[..., None] * 0.37 + axis + len(name)).cumsum(1) / 4
        answers = {"hidden": hidden.float(), "pooled": hidden.mean(1).float()}
        return {f"{name}.{key}": self._keep(f"{name}.{key}", answers[key]) for key in self.encoders[name]}

    def network(self, k: int, x: Tensor, time: float, conditioning: Mapping[str, Tensor]) -> Tensor:
        """One execution: (1, C, h, w) -> the same shape."""
        self._keep("inputs", x)
        self._keep("timesteps", torch.tensor([time]))
        total = torch.zeros((), dtype=torch.float64)
        for name in sorted(conditioning):
            values = self._keep(f"inputs.{name}", conditioning[name]).double().flatten()
            total = total + (values * torch.cos(torch.arange(len(values)).double())).mean()
        out = torch.tanh(0.7 * x.roll(1, -1).double() + total) * (0.5 + time / 2000) + 0.01 * k
        return self._keep("outputs", out.float())

    def vae_encoder(self, picture: Tensor) -> dict[str, Tensor]:
        """(1, 3, 2 h, 2 w) -> mean and deviation, (1, C, h, w)."""
        self._keep("vae_encoder.picture", picture)
        found = encoded(picture, CHANNELS, self.image)
        return {name: self._keep(f"vae_encoder.{name}", value) for name, value in found.items()}

    def decoder(self, latents: Tensor) -> Tensor:
        """(1, C, h, w) -> (1, channels, 2 h, 2 w), some of it beyond [-1, 1]."""
        self._keep("decoder.latents", latents)
        big = latents.double().repeat_interleave(2, -1).repeat_interleave(2, -2)
        return self._keep("decoder.picture", (big[:, : self.channels] * 0.9 + 0.1 * big[:, -1:]).float())
