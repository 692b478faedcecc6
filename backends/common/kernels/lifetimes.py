"""When a value of a program is no longer needed."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def last_uses(used: Sequence[Iterable[Name]], kept: Collection[Name]) -> list[list[Name]]:
    """For each operation the values that nothing reads after it.

    Args:
        used: what each operation reads, in order of execution.
        kept: what is needed after the last one.
    """
    last = {name: index for index, names in enumerate(used) for name in names}
    dead: list[list[Name]] = [[] for _ in used]
    for name, index in last.items():
        if name not in kept:
            dead[index].append(name)
    return dead
