"""Attention over the tokens of one prompt, as two batched products with a softmax between: what every target lowers."""

from __future__ import annotations

import torch
from torch import Tensor

FORBIDDEN = -30_000.0
"""Added to a score whose token must not be seen: its softmax is 0 in float32 and fp16, and the number itself fits fp16."""


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, heads: int) -> Tensor:
    """softmax(query key' + bias) value, for one prompt.

    Args:
        query, key, value: (1, L, heads * D) float32. bias: (1 or heads, L or 1, L), added to the scores.
    Returns:
        (1, L, heads * D).
    """
    length = query.shape[1]
    q, k, v = (each.reshape(length, heads, -1).permute(1, 0, 2) for each in (query, key, value))
    weights = torch.softmax(torch.bmm(q, k.permute(0, 2, 1)) + bias, dim=-1)
    return torch.bmm(weights, v).permute(1, 0, 2).reshape(1, length, -1)
