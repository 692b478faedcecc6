"""What a pipeline is beside its network: parts that steer it, which are refused, and calls that do more than sample it."""

from __future__ import annotations

from collections.abc import Mapping

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.hub import PARTS

BESIDE = ("safety_checker", "feature_extractor", "image_encoder", "bert")
"""Parts that are not read and change no step: of finished pictures, of pictures as prompts, of texts given by --conditioning."""
SAMPLED = frozenset({
    "ConsistencyModelPipeline", "DDIMPipeline", "DDPMPipeline", "DiTPipeline", "Flux2KleinPipeline", "Flux2Pipeline",
    "FluxPipeline", "LDMPipeline", "LatentConsistencyModelPipeline", "PNDMPipeline", "PixArtAlphaPipeline",
    "PixArtSigmaPipeline", "QwenImagePipeline", "SanaPipeline", "StableDiffusion3Pipeline", "StableDiffusionPipeline",
    "StableDiffusionXLPipeline", "ZImagePipeline",
})  # fmt: skip
"""Classes of diffusers whose steps are those of the samplers here (tests/published)."""


def check_parts(parts: Mapping[str, object], where: str) -> None:
    """Raise ModelError for a part that steers the network, such as a ControlNet or an adapter.

    Args:
        parts: of a pipeline's index or object; None is one that it could have and has not. where: for the text.
    """
    name = next((n for n, part in parts.items() if part is not None and n not in (*PARTS, *BESIDE)), None)
    if name is not None:
        raise ModelError(
            f"{where}: the pipeline has a part {name!r}, allowed are {', '.join((*PARTS, *BESIDE))}: what else steers its network "
            "is not calibrated and would be missing on the device; give the folder of the network's own pipeline"
        )


def parts_in(index: Mapping[str, object]) -> dict[str, object]:
    """The parts that ``model_index.json`` lists: entries of [library, class]."""
    pairs = {
        name: entry
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and not name.startswith("_")
    }
    return {name: entry for name, entry in pairs.items() if all(isinstance(each, str) for each in entry)}


def unlike(name: object) -> list[str]:
    """A line if the calls of a pipeline's class are not known to be what the samplers here do; none for no class."""
    text = name[-1] if isinstance(name, list) and name else name
    if not isinstance(text, str) or text.removeprefix("Flax").replace("Img2Img", "") in SAMPLED:
        return []
    return [
        f"{text} is no pipeline whose samples were compared with those here: its network is sampled from noise, with guidance "
        "f_u + w (f_c - f_u) and nothing else; what else its call does (perturbed attention, panoramas, pictures as inputs) is "
        "left out"
    ]
