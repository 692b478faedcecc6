"""What a module's ``forward`` is replaced by for a while, one replacement over the other."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


def replace_forward(module: nn.Module, wrap: Callable[[Forward], Forward]) -> Callable[[], None]:
    """Put ``wrap(forward)`` in the place of the module's forward. Returns what undoes it; the last is undone first."""
    before, held = vars(module).get("forward"), weakref.ref(module)
    module.forward = wrap(module.forward)

    def undo() -> None:  # it does not keep the module alive
        replaced = held()
        if replaced is None:
            return
        if before is None:
            del replaced.forward
        else:
            replaced.forward = before

    return undo


@contextmanager
def replaced_forwards(modules: Iterable[tuple[nn.Module, Callable[[Forward], Forward]]]) -> Iterator[None]:
    """Inside, every module's forward is what its function makes of it; after it, what it was, whatever happened."""
    with ExitStack() as stack:
        for module, wrap in modules:
            stack.callback(replace_forward(module, wrap))
        yield
