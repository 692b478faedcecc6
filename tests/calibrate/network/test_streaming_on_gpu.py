"""On a real GPU, streamed networks give what resident ones give, and hold no more than two blocks there."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from diffusers import SD3Transformer2DModel

from dq_toolchain.calibrate.blocks.reading import PinnedStage, Reader
from dq_toolchain.calibrate.network.activation_checkpointing import checkpointed, outermost_blocks
from dq_toolchain.calibrate.network.copiers import CudaCopier, pinned
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.network.streaming import Streaming, streamed_tensors
from dq_toolchain.calibrate.prepare.setup import choose_device
from tests.calibrate.network.streaming_cases import NETWORKS, both, first, inputs
from tests.calibrate.network.test_copiers import TENSORS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]


def gradients(network: QuantizedNetwork, device: torch.device) -> dict[str, torch.Tensor]:
    network.zero_grad()
    with checkpointed(network.inner):
        first(inputs(network, device=device)(network)).square().sum().backward()
    learned = network.weight_parameters() | network.scale_parameters()
    return {name: p.grad.clone() for name, p in learned.items() if p.grad is not None}


@pytest.mark.parametrize("name", NETWORKS)
def test_passes_and_gradients_are_those_of_resident_networks(name: str) -> None:
    device = choose_device("cuda")
    (prepared, network), (plain, exact) = both(name), both(name)
    plain.network.to(device)
    exact.to(device)
    engine = Streaming(device, CudaCopier(device))
    engine.attach(prepared.network)
    network.stream(engine)
    for seed in (1, 2, 3):
        with torch.no_grad():
            for found, wanted in ((prepared.network, plain.network), (network, exact)):
                call = inputs(found, seed=seed, device=device)
                assert torch.equal(first(call(found)), first(call(wanted)))
        wanted_gradients = gradients(exact, device)
        for learned, gradient in gradients(network, device).items():
            torch.testing.assert_close(gradient, wanted_gradients[learned], rtol=1e-6, atol=1e-7)
    engine.close()


def test_two_blocks_are_on_the_gpu_however_far_the_host_is_ahead() -> None:
    device = choose_device("cuda")
    network = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=10, attention_head_dim=64, num_attention_heads=12,
        joint_attention_dim=8, caption_projection_dim=768, pooled_projection_dim=16, pos_embed_max_size=8,
    ).eval().requires_grad_(False)  # fmt: skip
    blocks = [sum(t.nbytes for t in streamed_tensors(block)) for block in outermost_blocks(network)]
    engine = Streaming(device, CudaCopier(device))
    engine.attach(network)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    call = inputs(network, device=device)
    for grad in (False, True):
        torch.cuda.reset_peak_memory_stats(device)
        for _ in range(5):
            if grad:
                x = torch.randn(2, 4, 8, 8, device=device, requires_grad=True)
                with checkpointed(network):
                    first(call(network, x)).sum().backward()
            else:
                with torch.no_grad():
                    call(network)
        torch.cuda.synchronize()
        held = torch.cuda.max_memory_allocated(device) - before
        assert max(blocks) < held < 2.5 * max(blocks) < 0.3 * sum(blocks)
    engine.close()


def test_homes_are_pinned_and_rows_read_ahead_are_those_of_the_records() -> None:
    device = choose_device("cuda")
    for home, tensor in zip(pinned(TENSORS), TENSORS, strict=True):
        assert home.is_pinned() or not home.numel()
        assert torch.equal(home.to(device, non_blocking=True).cpu(), tensor)
    records = {("input", 0): torch.randn(50, 64, 64), ("output", ""): torch.randn(50, 7)}
    ahead, plain = Reader(copy.copy(records), device, PinnedStage(device)), Reader(records, device)
    batches = [torch.randperm(50)[:size] for size in (8, 8, 3, 16, 8)]
    for index, upcoming in zip(batches, [*batches[1:], batches[0]], strict=True):
        rows = ahead.read(index)
        ahead.expect(upcoming)
        wanted = plain.read(index)
        assert all(torch.equal(rows[key], wanted[key]) for key in records)
