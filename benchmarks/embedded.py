"""Artifacts of the embedded model for benchmarks of targets: ranges only, as fitting changes no operation."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.common import fit, prepare, recipe_of
from dq_toolchain.calibrate.data.context import ROLLOUT_BATCH
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.finalize import held_out_reference
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference


def artifact_of(weight_bits: int, step_groups: int, seeds: int) -> tuple[Artifact, Reference]:
    """An artifact and its held-out rollouts."""
    recipe = recipe_of({
        "quantize": {"weight_bits": weight_bits, "step_groups": step_groups},
        "calibrate": {"samples": 32}, "reference": {"seeds": max(2, seeds)},
    })  # fmt: skip
    prepared = prepare(recipe)
    artifact, _ = fit(prepared, recipe, iterations=False)
    held_out = prepared.context.draw(held_out_seeds(max(2, seeds)))
    unet = prepared.context.prepared.network
    return artifact, held_out_reference(artifact, unet, artifact.table, held_out, batch=ROLLOUT_BATCH)


def inputs_of(artifact: Artifact, reference: Reference, k: int, seed: int, ranges: Tensor | None) -> dict[str, Tensor]:
    """What step k of a held-out seed gives a program, by name: the simulation's own latent."""
    group = artifact.group_of_step[k]
    return {
        "sample": reference.simulation_latents[k][seed : seed + 1] * artifact.table.input_scale[k],
        "timestep": torch.tensor([artifact.table.timesteps[k]], dtype=torch.float32),
        **reference.conditioning.select(slice(seed, seed + 1)).cond,
        **({} if ranges is None else {"ranges": ranges[group : group + 1]}),
    }
