"""Record what the lowered model of an ExecuTorch bundle answers, so that every language can replay the same run.

    python -m scripts.golden.record --bundle dq-out/executorch --out dq-out/recorded [--seeds 2]

Writes OUT/replay.safetensors as in runtime_samples/golden, and OUT/expected, the report of this run.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.backends.base import Execute, Runtime
from dq_toolchain.backends.common.sampling import held_out, sample
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.backends.executorch.runtime.sampler import executor
from dq_toolchain.toolchain.disk.files import write_tensors
from dq_toolchain.toolchain.formats.bundle import Bundle


class Recorder:
    """Keeps what an execution was given and what it answered, but for the first ones, which warm up."""

    def __init__(self, execute: Execute, schedule: Schedule, warm_up: int) -> None:
        self.execute, self.schedule, self.left = execute, schedule, warm_up
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.times: list[Tensor] = []

    def __call__(self, k: int, x: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        out = self.execute(k, x, timestep, conditioning)
        self.left -= 1
        if self.left < 0:
            self.inputs.append(x.clone())
            self.outputs.append(out.clone())
            self.times.append(self.schedule.time(k, timestep).clone())
        return out

    def save(self, path: Path) -> None:
        """Write replay.safetensors."""
        write_tensors(
            path,
            {
                "inputs": torch.cat(self.inputs),
                "outputs": torch.cat(self.outputs),
                "timesteps" if self.schedule.step_vectors is None else "step_vectors": torch.cat(self.times),
            },
        )


def record(folder: Path, out: Path, seeds: int | None) -> None:
    """Run the bundle in ``folder`` and write the recording and its report to ``out``."""
    bundle = Bundle.load(folder)
    reference = held_out(bundle, folder, "executorch", seeds)
    device = Device(folder / bundle.program, bundle.methods)
    warm_up = len(dict.fromkeys(bundle.methods)) * (2 if bundle.guidance != 1.0 else 1)
    schedule = Schedule.of(bundle, folder)
    recorder = Recorder(executor(device, schedule), schedule, warm_up)
    runtime = Runtime("ExecuTorch", version("executorch"), "XNNPACK CPU", device.load_ms)
    sample(bundle, folder, out / "expected", reference, recorder, runtime, lambda done, total: None)
    recorder.save(out / "replay.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("dq-out/executorch"))
    parser.add_argument("--out", type=Path, default=Path("dq-out/recorded"))
    parser.add_argument("--seeds", type=int)
    given = parser.parse_args()
    record(given.bundle, given.out, given.seeds)
