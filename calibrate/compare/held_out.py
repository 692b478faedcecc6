"""FP32 rollouts of the held-out seeds, run once per model, sampler and conditioning and kept in a file.

Every cell of those steps is judged against the same tensors, whichever process and whichever day.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.calibrate.compare.locks import claim
from dq_toolchain.calibrate.data.conditioning import digest
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import rollouts_of
from dq_toolchain.calibrate.data.samples import Samples, held_out_seeds
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile, fingerprint
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk.digest import digest_of
from dq_toolchain.toolchain.recipe.sections import Recipe

BATCH = 64
"""Samples that are run side by side, FP32 and simulation alike; of a large network fewer per call, as many as have room."""
PLAIN = Method("fp32")
"""No method's smoothing: FP32 is the same network, bit for bit, for every method compared."""
POLL = 1.0
"""Seconds between looks while another process runs the same rollouts."""


@dataclass(frozen=True)
class HeldOut:
    """S held-out samples and their FP32 rollout over N network calls, float32, on the CPU.

    Attributes:
        samples: start latents, conditioning and step noise, S of each.
        latents: (N+1, S, C, H, W), x*; index 0 is the start. outputs: (N, S, C, H, W), after guidance.
        file: where they are kept; the name holds what they depend on.
    """

    samples: Samples
    latents: Tensor
    outputs: Tensor
    file: Path

    @property
    def final(self) -> Tensor:
        """(S, C, H, W), the FP32 samples."""
        return self.latents[-1]


def held_out(recipe: Recipe, seeds: int, folder: Path, reporter: Reporter, *, locks: bool = True) -> HeldOut:
    """The FP32 rollouts of ``seeds`` held-out samples, from ``folder`` or run now and kept there.

    Args:
        recipe: of any cell with these steps.
        locks: wait for a process of this machine that runs them already. False where machines share the folder: locks
            hold on one machine only, and who hands out the work has them run once.
    Raises:
        ToolchainError: the recipe is refused, or the folder cannot be written.
    """
    with closing(setup(recipe, PLAIN)) as context:
        samples = context.draw(held_out_seeds(seeds))
        identity = identity_of(context, samples, context.guidance)
        file = CheckpointFile(folder / f"fp32-{context.table.calls}-{identity[:12]}.safetensors", identity)
        share = _shared if locks else _kept
        tensors = share(file, lambda: _run(context, samples, context.guidance, reporter), reporter)
    return HeldOut(samples, tensors["latents"], tensors["outputs"], file.path)


def other_samples(recipe: Recipe, seeds: int, reporter: Reporter) -> Tensor:
    """(S, C, H, W) FP32 samples of as many further held-out seeds, run now and not kept."""
    with closing(setup(recipe, PLAIN)) as context:
        samples = context.draw(held_out_seeds(seeds, first=seeds))
        return _run(context, samples, context.guidance, reporter)["latents"][-1]


def identity_of(context: Context, samples: Samples, guidance: float) -> str:
    """Hash of everything that the FP32 rollouts depend on."""
    splits = {name: list(channels) for name, channels in context.prepared.splits.items()}
    model = (context.model.weight_hash, context.model.config)
    noise = digest_of({"start": samples.start, "step_noise": samples.step_noise})
    return fingerprint(model, context.table.to_json(), guidance, splits, digest(samples.conditioning), noise,
                       context.device.type, torch.__version__)  # fmt: skip


def _kept(file: CheckpointFile, run: Callable[[], dict[str, Tensor]], _reporter: Reporter) -> dict[str, Tensor]:
    """What the file holds; if nothing, what ``run`` gives, whoever else may be at it."""
    saved = file.load()
    if saved is not None:
        return saved[0]
    tensors = run()
    file.save(tensors, {})
    return tensors


def _shared(file: CheckpointFile, run: Callable[[], dict[str, Tensor]], reporter: Reporter) -> dict[str, Tensor]:
    """What the file holds; if nothing, what ``run`` gives, in this process or in the one that is at it already."""
    waiting = False
    while True:
        saved = file.load()
        if saved is not None:
            return saved[0]
        with claim(file.path.with_suffix(".lock")) as ours:
            if ours:
                saved = file.load()  # another process may have ended in between
                tensors = run() if saved is None else saved[0]
                if saved is None:
                    file.save(tensors, {})
                return tensors
        if not waiting:
            reporter.say("waiting for another process to finish the held-out FP32 rollouts")
        waiting = True
        time.sleep(POLL)


def _run(context: Context, samples: Samples, guidance: float, reporter: Reporter) -> dict[str, Tensor]:
    network, batch = context.network, BATCH
    if context.activation_memory is not None:
        batch = min(BATCH, context.rollout_batch)
    total = -(-len(samples) // batch) * context.table.calls
    with reporter.task("held-out FP32 rollouts", total) as advance:
        targets = rollouts_of(
            network, context.table, samples, guidance=guidance, batch=batch, device=context.device, advance=advance
        )
    return {"latents": targets.latents, "outputs": targets.outputs}
