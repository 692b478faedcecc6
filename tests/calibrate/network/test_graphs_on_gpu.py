"""CUDA graphs on a GPU: the numbers of passes run as they are, but for the order of sums."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from benchmarks.graph_speed import as_on_a_gpu

from tests.calibrate.network.graph_cases import CASES, case, iterate, recording


@pytest.fixture(autouse=True)
def gpu_like() -> Iterator[None]:
    with as_on_a_gpu():
        yield


@pytest.fixture
def gpu() -> torch.device:
    """``DQ_TEST_DEVICE=cpu`` shows without a GPU that the tests for one can be run."""
    name = os.environ.get("DQ_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return torch.device(name)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_latents_are_the_same_and_gradients_but_for_the_order_of_sums(name: str, gpu: torch.device) -> None:
    make, kind = CASES[name]
    which = make()
    which.network.to(gpu)
    expected = iterate(which, kind, descent=0.0)
    with recording(which):
        iterate(which, kind, descent=0.0)  # records
        found = iterate(which, kind, descent=0.0)
        assert len(which.graphs) > 0
    again = iterate(which, kind, descent=0.0)
    assert len(found) == len(expected)
    for replay, plain, other in zip(found, expected, again, strict=True):
        noise = float((other - plain).norm())
        assert float((replay - plain).norm()) <= 2 * noise + 1e-5 * float(plain.norm())


@pytest.mark.gpu
def test_on_a_gpu_memory_of_recordings_is_free_at_the_end(gpu: torch.device) -> None:
    if gpu.type != "cuda":
        pytest.skip("memory of a CPU is not torch's to count")
    which = case()
    which.network.to(gpu)
    held = []
    for _ in range(3):
        with recording(which):
            iterate(which, "adjoint", descent=0.0)
            inside = torch.cuda.memory_reserved(gpu)
        held.append(torch.cuda.memory_reserved(gpu))
    assert held[2] <= held[1] < inside
