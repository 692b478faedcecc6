"""Hooks on modules and parameters that are in force for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def hooks(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Inside, the hooks are in force; after it they are removed, whatever happened.

    Args:
        handles: what ``register_..._hook`` gave. A generator registers on entering, and should one registration fail, those
            before it are removed.
    """
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield
