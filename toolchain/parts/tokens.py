"""Token ids of a prompt, by the library `tokenizers` and tokenizer.json: the file and the rule are those of a device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.parts.pipeline import Tokenizer

FILE = "tokenizer.json"


class Tokens:
    """Turns prompts into ids.

    Args:
        folder: the artifact's or the bundle's, which holds ``about.folder``.
    Raises:
        ArtifactError: tokenizer.json is missing or damaged.
    """

    def __init__(self, about: Tokenizer, folder: Path) -> None:
        import tokenizers  # with transformers; not needed to list what a bundle holds

        file = folder / about.folder / FILE
        try:
            self._library = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises Exception itself
            raise ArtifactError(
                f"{file} cannot be read: {' '.join(str(error).split())[:200]}; write it again"
            ) from error
        self._library.no_truncation()
        self._library.no_padding()
        self.about = about

    def __call__(self, text: str) -> tuple[Tensor, Tensor]:
        """ids (1, L) int64, mask (1, L) float32: begin, the prompt's tokens as far as they fit, end, padding."""
        about = self.about
        first = () if about.begin is None else (about.begin,)
        found = self._of(text)[: about.length - 1 - len(first)]
        row = [*first, *found, about.end]
        rest = about.length - len(row)
        ids = torch.tensor([row + [about.pad] * rest], dtype=torch.int64)
        return ids, torch.tensor([[1.0] * len(row) + [0.0] * rest])

    def left_out(self, text: str) -> int:
        """How many tokens of a prompt do not fit."""
        return max(0, len(self._of(text)) - (self.about.length - (1 if self.about.begin is None else 2)))

    def _of(self, text: str) -> list[int]:
        text = text.lower().strip() if self.about.lower else text
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids
