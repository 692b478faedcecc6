"""Which of the two interpreters executes a bundle, and that the report says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dq_toolchain.backends.base import Runtime
from dq_toolchain.backends.coreai.asset import load
from dq_toolchain.backends.coreai.evaluator.macs import apples_seconds, macs
from dq_toolchain.backends.coreai.runtime import device
from dq_toolchain.toolchain.formats.bundle import Bundle

pytestmark = pytest.mark.skipif("sys.platform == 'darwin'", reason="Core AI itself executes there")


def _first_call(bundle: Bundle, folder: Path) -> tuple[Tensor, Runtime]:
    execute, runtime = device.open_bundle(bundle, folder, None)
    sample = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return execute(0, sample, torch.tensor([500.0]), {"class_labels": torch.tensor([3])}), runtime


def test_apples_executes_small_networks_and_the_evaluator_large_ones(
    bundle: tuple[Bundle, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    apples, apple = _first_call(*bundle)
    program = load(bundle[1] / bundle[0].program)
    count = macs(program, program.functions[bundle[0].methods[0]])
    seconds = apples_seconds(program, program.functions[bundle[0].methods[0]])
    monkeypatch.setattr(device, "SECONDS", 0.9 * seconds)
    ours, own = _first_call(*bundle)
    assert (apple.name, own.name) == (device.INTERPRETER, device.EVALUATOR)
    for runtime, why in ((apple, "up to about 60 s"), (own, "takes about")):
        assert f"{count / 1e9:.3g} GMAC a call" in runtime.unit
        assert re.search(why, runtime.unit)
    assert (ours - apples).norm() <= 0.1 * apples.norm()  # fp16: roundings that flip travel
    monkeypatch.setattr(device, "SECONDS", 1.1 * seconds)
    assert _first_call(*bundle)[1].name == device.INTERPRETER
