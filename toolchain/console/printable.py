"""Foreign text made fit for a terminal and for a page: names, prompts and versions out of files that somebody else wrote."""

from __future__ import annotations

import unicodedata

LONGEST = 500
"""Characters; a line that is longer tells nobody more."""
LONGEST_ERROR = 1000
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories that move the cursor, change the direction of writing, or show nothing."""


def printable(text: object, longest: int = LONGEST) -> str:
    r"""The text on one line, without what a terminal or a page would obey: escapes and bidirectional marks are shown as ``\x1b``.

    Blanks and line ends become one space each; what is longer than ``longest`` ends in "...".
    """
    line = " ".join(str(text).split())
    shown = visible(line[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def visible(text: str) -> str:
    r"""The text with what a terminal would obey shown as ``\x1b``; line ends and spaces stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character == "\n" or unicodedata.category(character) not in INVISIBLE:
        return character
    return character.encode("unicode_escape").decode()
