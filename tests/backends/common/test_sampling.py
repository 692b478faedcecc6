"""The sampler around a lowered program does what the Denoiser does, execution by execution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.backends.base import Runtime
from dq_toolchain.backends.common.sampling import DeviceNetwork, sample
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.probe import probe
from tests.tiny import noise, scheduler

GOLDEN = Path(__file__).parents[3] / "runtime_samples" / "golden"
TABLE = probe(scheduler(), 4)
CORRECTION = Correction(
    tuple((0.1 + 0.2 * k, -0.3) for k in range(4)),
    tuple((1.1 - 0.1 * k, 0.7) for k in range(4)),
    tuple((0.05 * k, 0.4) for k in range(4)),
)


def _formula(x: Tensor, time: Tensor, label: Tensor) -> Tensor:
    """By element, so that batches change nothing."""
    return torch.tanh(x + label.view(-1, 1, 1, 1)) * (1 + time.view(-1, 1, 1, 1) / 1000)


class Formula(nn.Module):
    def forward(self, x: Tensor, time: Tensor, class_labels: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (_formula(x, time, class_labels),)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("correction", [None, CORRECTION], ids=["plain", "corrected"])
def test_device_network_equals_the_denoiser(correction: Correction | None, guidance: float) -> None:
    table = replace(TABLE, correction=correction)
    conditioning = Conditioning({"class_labels": torch.tensor([3.0])}, {"class_labels": torch.tensor([9.0])})

    def execute(k: int, x: Tensor, timestep: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        return _formula(x, timestep, given["class_labels"])

    device = DeviceNetwork(execute, table, guidance, conditioning)
    denoiser = Denoiser(Formula(), table, conditioning, guidance)
    for k in range(4):
        x = noise(1, seed=k, channels=2)
        assert torch.equal(device(x, k), denoiser(x, k))


def test_the_warm_up_and_both_rollouts_are_corrected(tmp_path: Path) -> None:
    folder = GOLDEN / "ddim-corrected" / "bundle"
    bundle = Bundle.load(folder)
    reference, correction = bundle.reference(folder), bundle.table.correction
    assert correction is not None
    given: list[tuple[int, Tensor]] = []

    def execute(k: int, x: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        given.append((k, x))
        return torch.zeros_like(x)

    sample(bundle, folder, tmp_path, reference, execute, Runtime("none", "1", "none", 0.0), lambda done, total: None)
    warm = 2 * len(bundle.methods)
    rollout, calls = 2 * bundle.table.calls, bundle.table.calls
    for k, x in (*given[:warm], given[warm]):
        assert torch.equal(x, correction.before(reference.start[:1] * bundle.table.input_scale[k], k))
    forced = given[warm + rollout : warm + 2 * rollout : 2]
    assert [k for k, _ in forced] == list(range(calls))
    for k, x in forced:
        assert torch.equal(x, correction.before(reference.simulation_latents[k, :1] * bundle.table.input_scale[k], k))
