"""The order in which work is handed to CUDA, with a stand-in for torch.cuda that notes it. No GPU is asked."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dq_toolchain.calibrate.network.graphs import recorder_for
from dq_toolchain.calibrate.network.recorder import WARM_UPS, CudaGraphs


def test_works_are_warmed_up_on_a_stream_of_their_own_and_recorded_once_in_one_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted: list[Any] = []

    class Stream:
        def __init__(self, name: object = "own") -> None:
            self.name = "usual" if name == "usual" else "own"

        def wait_stream(self, other: Stream) -> None:
            noted.append(f"{self.name} waits for {other.name}")

    class Graph:
        def __init__(self) -> None:
            self.number = len([each for each in noted if isinstance(each, tuple)])

        def replay(self) -> None:
            noted.append(f"replay {self.number}")

    def graph(made: Graph, **options: Any) -> AbstractContextManager[None]:
        noted.append((made.number, options["pool"], options["stream"].name))
        return nullcontext()

    stand_in = SimpleNamespace(
        Stream=Stream,
        CUDAGraph=Graph,
        graph=graph,
        graph_pool_handle=lambda: "pool",
        device=lambda _device: nullcontext(),
        stream=lambda _stream: nullcontext(),
        current_stream=lambda: Stream("usual"),
        set_stream=lambda stream: noted.append(f"back on {stream.name}"),
    )
    monkeypatch.setattr(torch, "cuda", stand_in)
    works = (lambda: noted.append("forward"), lambda: noted.append("backward"))
    forward, backward = CudaGraphs(torch.device("cpu")).record(works)
    backward()
    forward()
    assert noted == [
        "own waits for usual",
        *(["forward", "backward"] * WARM_UPS),
        "usual waits for own",
        (0, "pool", "own"),
        "forward",
        (1, "pool", "own"),
        "backward",
        "back on usual",
        "replay 1",
        "replay 0",
    ]


def test_nothing_is_recorded_on_a_cpu() -> None:
    assert recorder_for(torch.device("cpu")) is None
    assert recorder_for(torch.device("cuda", 0)) is not None
