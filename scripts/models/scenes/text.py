"""Captions as token ids. In training the embedding has only the rows that captions use; the file has all of CLIP's.

The first of the few rows stands for every token that no caption has: it is trained on words that are left out at random,
so a word that the model does not know disturbs little.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from scripts.models.scenes.captions import caption
from scripts.models.scenes.networks import BEGIN, END, LENGTH, build_text_encoder
from scripts.models.scenes.world import any_scene

SAMPLE = 3_000
"""Captions that the vocabulary is collected from."""


class Vocabulary:
    """The tokens of captions, numbered from 1; 0 is any other."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        draw = random.Random(0)
        captions = [caption(any_scene(draw), draw) for _ in range(SAMPLE)]
        self.tokenizer = tokenizer
        self.tokens = sorted({token for ids in tokenizer(captions).input_ids for token in ids} | {BEGIN, END})
        self.row = torch.zeros(len(tokenizer), dtype=torch.int64)
        self.row[torch.tensor(self.tokens)] = torch.arange(1, len(self.tokens) + 1)

    def ids(self, captions: list[str]) -> Tensor:
        """(N, 77) int64 token ids, as StableDiffusionPipeline makes them."""
        encoded = self.tokenizer(
            captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        )
        ids: Tensor = encoded.input_ids
        return ids

    def rows(self, captions: list[str], unknown: float = 0.0) -> Tensor:
        """(N, 77) int64 rows of the small embedding; each word becomes row 0 with probability ``unknown``."""
        ids = self.ids(captions)
        hidden = (torch.rand(ids.shape) < unknown) & (ids != BEGIN) & (ids != END)
        return self.row[ids].masked_fill(hidden, 0)

    def small_encoder(self) -> CLIPTextModel:
        """A text encoder, random weights, for ``rows``."""
        return build_text_encoder(len(self.tokens) + 1)

    @torch.no_grad()
    def whole_encoder(self, small: CLIPTextModel) -> CLIPTextModel:
        """The same encoder for CLIP's token ids."""
        state = dict(small.state_dict())
        (name,) = [name for name in state if name.endswith("token_embedding.weight")]
        state[name] = state[name][self.row]
        whole = build_text_encoder()
        whole.load_state_dict(state)
        return whole.eval()
