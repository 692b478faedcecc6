"""Every published layout gives the latents of diffusers' own pipeline, at every step, with and without guidance.

All of them: ``tests/run.sh -m slow tests/published``, or ``pytest -m slow tests/published``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.published.against_diffusers import largest_error, ours, theirs
from scripts.published.building import build
from scripts.published.layouts import LAYOUTS

TOLERANCE = 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_samples_as_its_pipeline_does(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    folder = build(layout, tmp_path / "model")
    clip = bool(layout.settings.get("sampler", {}).get("clip", True))
    cases = ((0.0, ""), (1.0, ""), (layout.scale, ""), (layout.scale, "blurry fog"))
    for guidance, negative in cases if layout.guided else cases[:1]:
        if negative and not layout.encoders:
            continue
        context, samples, latents = ours(
            folder, tmp_path / "out", layout.steps, guidance, negative, bool(layout.encoders), layout.settings
        )
        noise = samples.start / context.table.init_noise_sigma
        reference = theirs(folder, samples, noise, layout.steps, guidance, negative, clip=clip)
        assert largest_error(latents[1:], reference) <= TOLERANCE, f"guidance {guidance}, negative prompt {negative!r}"
