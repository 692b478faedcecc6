"""Activation checkpointing: blocks keep their inputs only and are run again when their gradient is due.

Chen et al. 2016. Peak memory of activations is then that of one block, for one more forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dq_toolchain.calibrate.network.forwards import Forward, replaced_forwards
from dq_toolchain.toolchain.models.blocks import ALL_BLOCKS


@contextmanager
def checkpointed(network: nn.Module) -> Iterator[None]:
    """Inside, activations of every outermost block are checkpointed; gradients are the same."""
    with replaced_forwards((block, _checkpointed) for block in outermost_blocks(network)):
        yield


def outermost_blocks(network: nn.Module) -> list[nn.Module]:
    """Blocks that are in no other, in the order of the modules."""
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():  # parents first
        if isinstance(module, ALL_BLOCKS) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return list(found.values())


def _checkpointed(forward: Forward) -> Forward:
    return partial(_checkpointed_forward, forward)


def _checkpointed_forward(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
