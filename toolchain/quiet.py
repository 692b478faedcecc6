"""Keeps the start-up chatter of optional libraries off the user's screen; errors stay visible."""

from __future__ import annotations

import logging
import os
import warnings

CHATTY = ("torchao", "torch.utils._pytree", "torch.distributed.elastic")


def quiet_imports() -> None:
    """Called by the command before diffusers is imported, which imports torchao where it is installed."""
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # on import it sets the level of its own logger
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|torchao|diffusers)(\..*)?")
