"""A picture of a prompt by the integer simulation: the network in integers, the other parts with the weights of their integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.models.architectures import inputs_of
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.beginning import from_picture
from dq_toolchain.toolchain.parts.generation import Picture, picture_of
from dq_toolchain.toolchain.parts.pipeline import FOLDER
from dq_toolchain.toolchain.parts.prompting import LABELS, Wish, check_wish, conditioning_of
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.samplings import chosen
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


def generate(
    artifact: Artifact,
    folder: Path,
    wish: Wish,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    warn: Callable[[str], None],
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> Picture:
    """The picture of a wish.

    Args:
        folder: of the artifact. steps, guidance: of those that it has held-out rollouts of; None are the calibrated ones.
    Raises:
        RecipeError: the wish does not fit the model.
        ArtifactError: the artifact has no parts, or they are damaged.
        SamplerError: the artifact has no such steps or guidance.
    """
    found = PartsArtifact.load(folder)
    if found is None:
        raise ArtifactError(
            f"{folder} holds the network alone, without text encoders and decoder; calibrate the folder of a whole pipeline"
        )
    labels = inputs_of(artifact.config).get(LABELS)
    classes = None if labels is None else labels.classes
    check_wish(wish, found.pipeline, takes_labels=labels is not None, classes=classes)
    shape = load_reference(folder).start[:1].shape
    own = artifact.table.calls if artifact.steps is None else artifact.steps
    wanted = (own if steps is None else steps, artifact.guidance if guidance is None else guidance)
    others = chosen(artifact.samplings, own, artifact.guidance, [wanted[0]], [wanted[1]])
    sampling = next((each for each in others if each.is_of(*wanted)), None)
    begun = from_picture(wish, found.pipeline, None if artifact.steps is None else wanted[0])
    artifact = artifact if sampling is None else artifact.at(sampling)
    modules: dict[str, nn.Module] = {}

    def run(name: str, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        part = found.part(name)
        module = modules.setdefault(name, part.build())
        return dict(zip((port.name for port in part.outputs), module(*given.values()), strict=True))

    guided = artifact.guidance != 1.0
    conditioning = conditioning_of(
        wish, found.pipeline, folder / FOLDER, found.constants, run, guided=guided, warn=warn
    )
    network = SimulatedNetwork(artifact)
    denoiser = Denoiser(network, artifact.table, conditioning, artifact.guidance, network.set_step)
    return picture_of(wish.seed, shape, artifact.table, denoiser, found.pipeline, run, on_step, begun)
