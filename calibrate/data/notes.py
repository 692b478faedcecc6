"""What a prompt says that diffusers' pipelines read as plain text, although other programs read more into it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Warn = Callable[[str], None]

LITERAL = {
    r"<(?:lora|lyco|hypernet)\s*:[^<>]*>": "adapters are given with --lora FILE",
    r"\([^()]+:\s*[0-9.]+\s*\)": "there are no weights of words; give conditioning that was made with them with --conditioning",
    r"\[[^\[\]]*:[^\[\]]*\]": "a prompt is one for all steps",
    r"\bembedding:\S+": "learned words (textual inversion) are not loaded; give conditioning made elsewhere with --conditioning",
}
"""Notation of other programs (AUTOMATIC1111, ComfyUI), and what to do instead."""
PLACEHOLDER = re.compile(r"<(?!\|)[^\s<>:|]+>")
"""What a learned word (textual inversion) looks like."""


def read_literally(prompts: Sequence[str], tokenizers: Sequence[Any]) -> Iterator[str]:
    """A line for each kind of notation that has no meaning here, with its first example."""
    for pattern, remedy in LITERAL.items():
        yield from _line([found[0] for prompt in prompts for found in re.finditer(pattern, prompt)], remedy)
    words = [found[0] for prompt in prompts for found in PLACEHOLDER.finditer(prompt)]
    known = [set(tokenizer.get_vocab()) for tokenizer in tokenizers] if words else []
    unknown = [word for word in words if not all(word in vocabulary for vocabulary in known)]
    yield from _line(unknown, "no learned word (textual inversion) of that name is in the pipeline's tokenizers")


def _line(examples: Sequence[str], remedy: str) -> Iterator[str]:
    distinct = list(dict.fromkeys(examples))
    if distinct:
        more = f" and {len(distinct) - 1} more are" if len(distinct) > 1 else " is"
        yield f"prompts: {distinct[0]!r}{more} read as plain text, as diffusers' pipelines do; {remedy}"
