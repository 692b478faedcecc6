"""Which pipelines of diffusers begin with a picture, and at which step: asked of their classes, with no list of our own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

LATENT_CONSISTENCY = "LatentConsistencyModelPipeline"
"""Chooses other timesteps for each strength: there is no one table that a run could begin within."""


def image_to_image_class(name: str) -> Any | None:
    """diffusers' class that begins with a picture where the class of this name begins with noise; None if there is none."""
    from diffusers.pipelines.auto_pipeline import AUTO_IMAGE2IMAGE_PIPELINES_MAPPING, AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    both = (AUTO_TEXT2IMAGE_PIPELINES_MAPPING, AUTO_IMAGE2IMAGE_PIPELINES_MAPPING)
    pairs = ((key, kind) for mapping in both for key, kind in mapping.items())
    keys = [key for key, kind in pairs if kind.__name__ == name and key in AUTO_IMAGE2IMAGE_PIPELINES_MAPPING]
    return AUTO_IMAGE2IMAGE_PIPELINES_MAPPING[keys[0]] if keys else None


def start_rounds_of(kind: Any) -> str | None:
    """How such a class rounds steps times strength: "up" is to the later of two first steps, "down" to the earlier.

    Returns:
        None: it chooses its steps in another way.
    """
    steps = SimpleNamespace(scheduler=SimpleNamespace(timesteps=list(range(10)), order=1))
    try:
        _, left = kind.get_timesteps(steps, 10, 0.35, None)
    except (AttributeError, TypeError):
        return None
    return {3: "up", 4: "down"}.get(left)


def begins_with_pictures(name: str) -> str | None:
    """``start_rounds_of`` the class that begins with a picture for the class of this name; None: not offered here."""
    kind = None if name == LATENT_CONSISTENCY else image_to_image_class(name)
    return None if kind is None else start_rounds_of(kind)
