"""Foreign text made fit for a terminal and for a page: names, prompts and versions out of files that somebody else wrote."""

from __future__ import annotations

import unicodedata

LONGEST = 500
"""Characters; a line that is longer tells nobody more."""
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories that move the cursor, change the direction of writing, or show nothing."""


def printable(text: object, longest: int = LONGEST) -> str:
    r"""The text on one line, without what a terminal or a page would obey: escapes and bidirectional marks are shown as ``\x1b``.

    Blanks and line ends become one space each; what is longer than ``longest`` ends in "...".
    """
    line = " ".join(str(text).split())
    shown = "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in INVISIBLE else character
        for character in line[: longest + 1]
    )
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."
