"""Rows put into records and taken out of them, wherever a record is, without waiting for the device where it can be helped."""

from __future__ import annotations

import torch
from torch import Tensor

from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.sampler.transfer import to_device


def put_rows(record: Tensor, index: Tensor, value: Tensor) -> None:
    """Set rows (B,) of a record; a record on the host is the only one that is waited for."""
    if record.device.type == "cpu":
        record[index] = read_on_host(value.detach(), "record of a unit")
    else:
        record[to_device(index, record.device)] = to_device(value.detach(), record.device)


def rows_of(record: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """Rows (B,) of a record on a device. index: int64, on the CPU."""
    if record.device.type == "cpu":
        return to_device(record[index], device)
    return record[to_device(index, record.device)]
