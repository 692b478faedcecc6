"""Tensors of the host brought to a device without waiting for it: what the device still has to do goes on meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """x on the device; x itself if it is there.

    To a GPU the copy is queued, from pinned memory: CUDA waits for copies out of other memory until all that was queued
    before is done. The pinned memory is kept by torch until the copy is done, whatever becomes of x meanwhile.
    """
    if x.device.type != "cpu" or device.type == "cpu":
        return x.to(device)
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)
