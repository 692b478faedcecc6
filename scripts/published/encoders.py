"""Text encoders of a few letters: a tokenizer made here, and the config of a small CLIP."""

from __future__ import annotations

from transformers import CLIPTextConfig, CLIPTokenizer

TOKENS, POOLED = 12, 16


def tokenizer() -> CLIPTokenizer:
    """Letters, and what CLIP puts around them."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=TOKENS)


def text_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=54, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=TOKENS, projection_dim=POOLED, bos_token_id=52, eos_token_id=53, pad_token_id=53,
    )  # fmt: skip
