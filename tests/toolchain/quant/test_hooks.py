"""Hooks are gone after the block that they were made for, also when it fails or a registration does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from dq_toolchain.toolchain.quant.hooks import hooks


def _counting(layers: list[nn.Module], calls: list[int]) -> Iterator[RemovableHandle]:
    for number, layer in enumerate(layers):
        yield layer.register_forward_pre_hook(lambda *_, number=number: calls.append(number))


def test_hooks_are_in_force_inside_only() -> None:
    calls: list[int] = []
    layers: list[nn.Module] = [nn.ReLU(), nn.ReLU()]
    network = nn.Sequential(*layers)
    with hooks(_counting(layers, calls)):
        network(torch.zeros(1))
    network(torch.zeros(1))
    assert calls == [0, 1]


@pytest.mark.parametrize("where", ["inside", "registration"])
def test_a_failure_leaves_no_hook(where: str) -> None:
    calls: list[int] = []
    layer = nn.ReLU()

    def handles() -> Iterator[RemovableHandle]:
        yield from _counting([layer], calls)
        if where == "registration":
            raise RuntimeError

    with pytest.raises(RuntimeError), hooks(handles()):
        raise RuntimeError
    layer(torch.zeros(1))
    assert calls == []
