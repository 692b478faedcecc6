"""Records of finished units: made once, answered from then on; what cannot be recorded is computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks import storage
from dq_toolchain.calibrate.blocks.replay import Replay
from dq_toolchain.calibrate.blocks.storage import IN_MEMORY

CPU = torch.device("cpu")
ROWS = 5


class Network(nn.Module):
    """Two layers in turn, the first ``times`` times."""

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.times = nn.Linear(3, 3), nn.Linear(3, 2), times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.first(x)
        out: Tensor = self.second(x)
        return out


def run(network: Network, replay: Replay, x: Tensor, without: str = "") -> Tensor:
    found = torch.zeros(ROWS, 2)
    with torch.no_grad(), replay.playing(network, without):
        for index in torch.arange(ROWS).split(2):
            replay.index = index
            found[index] = network(x[index])
    return found


def test_a_finished_module_is_computed_once_and_answers_with_what_it_gave() -> None:
    network, replay, x = Network(), Replay(ROWS, CPU, IN_MEMORY), torch.randn(ROWS, 3)
    before = run(network, replay, x)
    replay.finish("first")
    assert torch.equal(run(network, replay, x), before)
    assert torch.equal(run(network, replay, torch.zeros_like(x)), before)  # the second layer sees the record
    assert not torch.equal(run(network, replay, torch.zeros_like(x), without="first"), before)
    assert "forward" not in vars(network.first)


def test_a_module_that_is_called_twice_is_computed() -> None:
    network, replay, x = Network(times=2), Replay(ROWS, CPU, IN_MEMORY), torch.randn(ROWS, 3)
    replay.finish("first")
    wanted = run(network, Replay(ROWS, CPU, IN_MEMORY), x)
    for _ in range(3):
        assert torch.equal(run(network, replay, x), wanted)


def test_what_does_not_fit_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MOST_IN_MEMORY", ROWS * 3 * 4)
    network, x = Network(), torch.randn(ROWS, 3)
    replay = Replay(ROWS, CPU, IN_MEMORY)
    replay.finish("first")
    replay.finish("second")
    before = run(network, replay, x)
    with torch.no_grad():
        network.second.bias.add_(1)
    torch.testing.assert_close(run(network, replay, torch.zeros_like(x)), before + 1)


def test_pictures_answer_in_the_layout_that_they_were_made_in_whatever_batch_came_first() -> None:
    """Behind one whose only row says nothing of where rows lie: its stride is that of another axis."""

    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            channels_last = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
            sizes, strides = channels_last.shape, list(channels_last.stride())
            strides[0] = strides[3] if sizes[0] == 1 else strides[0]
            return channels_last.as_strided(sizes, strides)

    network, x, batches = nn.Sequential(Last()), torch.randn(4, 3, 2, 2), torch.arange(4).split([1, 3])
    replay = Replay(4, CPU, IN_MEMORY)
    replay.finish("0")
    with replay.playing(network, ""):
        for _ in range(2):
            found = []
            for index in batches:
                replay.index = index
                found.append(network(x[index]))
    assert torch.equal(torch.cat(found), x)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in found)
