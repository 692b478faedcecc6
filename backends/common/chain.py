"""The first held-out samples as pictures, each stage with one part more of the device than the one before."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.backends.base import Backend, Execute
from dq_toolchain.backends.common.generate import BundleParts, read_pipeline
from dq_toolchain.backends.common.sampling import DeviceNetwork
from dq_toolchain.toolchain.disk.files import read_tensors
from dq_toolchain.toolchain.formats.bundle import REMEDY, Bundle
from dq_toolchain.toolchain.formats.reference import FILE as CALIBRATED
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.parts.part import DECODER
from dq_toolchain.toolchain.parts.picture import pixels
from dq_toolchain.toolchain.parts.pipeline import FOLDER, JSON, REFERENCE
from dq_toolchain.toolchain.parts.prompting import Wish, conditioning_of
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.rollout import rollout


@torch.no_grad()
def draw_chain(
    backend: Backend,
    bundle: Bundle,
    folder: Path,
    reference: Reference,
    execute: Execute,
    latents: Tensor,
    threads: int | None,
) -> dict[str, Tensor]:
    """Stage (``chain.STAGES``) -> pictures (S, 3, H, W) uint8; empty where the bundle has no decoder, or other steps ran.

    Args:
        reference: of the seeds that ran. latents: (S, C, h, w), where the device's own rollouts ended.
    Raises:
        BackendError: a part does not load or execute.
    """
    path = folder / JSON
    if not path.is_file() or bundle.reference_file != CALIBRATED:
        return {}
    pipeline, data = read_pipeline(path)
    if pipeline.decoder is None:
        return {}
    count = min(len(read_tensors(folder / FOLDER / REFERENCE, REMEDY)["pictures"]), reference.seeds)
    parts = BundleParts(backend, pipeline, folder, threads, keep=True)

    def decoded(rows: Tensor) -> Tensor:
        return pixels(torch.cat([parts(DECODER, {"latents": row[None]})["picture"] for row in rows]))

    drawn = {"decoder": decoded(reference.fp32_latents[-1][:count]), "network": decoded(latents[:count])}
    prompts, negative = data["reference"]["prompts"], data["reference"]["negative"]
    if not prompts:
        return drawn
    constants = {} if pipeline.constants is None else read_tensors(folder / pipeline.constants, REMEDY)
    ends = []
    for seed, prompt in zip(range(count), prompts, strict=False):
        stored = reference.conditioning.select(slice(seed, seed + 1))
        wish = Wish(prompt=prompt, negative=negative)
        made = conditioning_of(
            wish, pipeline, folder, constants, parts, guided=bundle.guidance != 1.0, warn=lambda _line: None
        )
        network = DeviceNetwork(execute, bundle.table, bundle.guidance, _of_text(stored, made))
        noise = None if reference.step_noise is None else reference.step_noise[:, seed : seed + 1]
        ends.append(rollout(bundle.table, network, reference.start[seed : seed + 1], noise=noise)[-1])
    return {**drawn, "prompt": decoded(torch.cat(ends))}


def _of_text(stored: Conditioning, made: Conditioning) -> Conditioning:
    """What the device's encoders made, and of the rest what is stored; in the order of the program's inputs."""
    return Conditioning(
        {name: made.cond.get(name, value) for name, value in stored.cond.items()},
        {name: made.uncond.get(name, value) for name, value in stored.uncond.items()},
    )
