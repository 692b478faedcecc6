"""The console that everything is printed on: text is text, and nothing in it is obeyed.

Names, prompts and versions come out of files that somebody else wrote. Whatever rich is handed as a string, in a line or
in a cell of a table, loses its escapes and bidirectional marks here; ``plain`` takes away the meaning of markup too.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.errors import MarkupError
from rich.text import Text

from dq_toolchain.toolchain.console.printable import LONGEST, printable, visible


class Terminal(Console):
    """rich's console whose strings cannot steer a terminal. Markup that does not close is printed as it stands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as rich renders it, each character visible."""
        shown = visible(text)
        try:
            return super().render_str(shown, **{**options, "emoji": False})
        except MarkupError:
            return super().render_str(shown, **{**options, "emoji": False, "markup": False})


def plain(text: object, style: str = "", longest: int = LONGEST) -> Text:
    """Foreign text for a line or a cell: one line, neither markup nor escapes, at most ``longest`` characters."""
    return Text(printable(text, longest), style=style)


def line(*parts: str | Text) -> Text:
    """One line of what the project says itself (strings) and of foreign text (``plain``), none of it markup."""
    return Text.assemble(*(Text(visible(part)) if isinstance(part, str) else part for part in parts))
