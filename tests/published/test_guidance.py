"""Guidance up to 1 is what diffusers' pipelines make of it: one conditional call, also at 0, which turbo models ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scripts.published.against_diffusers import largest_error, ours, theirs
from scripts.published.building import CLASSES, build
from scripts.published.layouts import DIT, LAYOUTS, PIXART, Layout, named, sd, xl

from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import rollout

SMALL = {"block_out_channels": [32, 32], "sample_size": 8, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
         "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}  # fmt: skip


def small(layout: Layout, **changes: object) -> Layout:
    return replace(layout, network={**layout.network, **changes}, steps=2)


FAMILIES = {
    "sd": small(sd(LAYOUTS["sd turbo"].scheduler), **SMALL),
    "sdxl": small(xl(named("EulerAncestralDiscreteScheduler", timestep_spacing="trailing")), **SMALL,
                  transformer_layers_per_block=[1, 1], attention_head_dim=[1, 2]),
    "sd3": small(LAYOUTS["sd3"], sample_size=8, num_layers=2),
    "pixart": small(LAYOUTS["pixart alpha 512"], sample_size=8, _class_name=CLASSES[str(PIXART["norm_type"])]),
    "dit": small(LAYOUTS["dit"], sample_size=8, _class_name=CLASSES[str(DIT["norm_type"])]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_guidance_up_to_one_is_conditional_only_as_in_diffusers(name: str, tmp_path: Path) -> None:
    layout = FAMILIES[name]
    folder, text = build(layout, tmp_path / "model"), bool(layout.encoders)
    context, samples, latents = ours(folder, tmp_path / "out", layout.steps, 0.0, "", text, layout.settings)
    assert context.guidance == 1.0
    noise = samples.start / context.table.init_noise_sigma
    for guidance in (0.0, 0.5, 1.0):
        assert largest_error(latents[1:], theirs(folder, samples, noise, layout.steps, guidance, "")) <= 1e-5
    network = Denoiser(context.prepared.network, context.table, samples.conditioning, context.guidance)
    same = None if samples.step_noise is None else samples.step_noise[:, :1].expand_as(samples.step_noise)
    with torch.no_grad():
        pictures = list(rollout(context.table, network, samples.start[:1].expand_as(samples.start), noise=same))[-1]
    assert (
        float((pictures[0] - pictures[1]).norm() / pictures[0].norm()) > 1e-4
    )  # of one noise and two prompts or labels
