"""What must be set before libraries are imported: their chatter stays off the user's screen, their threads wait asleep."""

from __future__ import annotations

import logging
import os
import warnings

CHATTY = ("torchao", "torch.utils._pytree", "torch.distributed.elastic")


def wait_passively() -> None:
    """Called by the command before torch is imported, whose OpenMP reads it once.

    Threads that spin while they wait for each other hold the cores that another job's threads, or their own, need to go on: with
    one other process per core a fit then takes several times as long (``benchmarks/under_load.py``). A user's own choice stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def quiet_imports() -> None:
    """Called by the command before diffusers is imported, which imports torchao where it is installed."""
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # on import it sets the level of its own logger
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|torchao|diffusers)(\..*)?")
