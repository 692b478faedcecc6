"""`dq-toolchain analyze`: which layers of a calibration make the error of the finished image, and what float would gain there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch

from dq_toolchain.calibrate.bits.layer_errors import Shares, measure_shares
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import rollouts_of
from dq_toolchain.calibrate.data.samples import Samples, held_out_seeds
from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.network.activation_checkpointing import checkpointed
from dq_toolchain.calibrate.network.channels_last import to_host
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile, fingerprint, mark, remove
from dq_toolchain.toolchain.chances import student_quantiles
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.console.quiet import heard
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.errors import ArtifactError, ModelError, RecipeError
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.listing import JSON
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.quant.qparams import Scheme
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork

RUNS, MOST = 32, 4096
CHEAP = 0.02
"""Share of a network's multiplications that float layers may have to be proposed."""
WORTH = 0.05
"""Share of the error that a layer needs to be proposed."""


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """One layer, or one attention block whose products are in integers.

    Attributes:
        weights, activations: shares of the error of the finished sample: by its integer weights and its bias; by rounding its
            inputs (and results, where these are sites).
        multiplications: share of all layers' multiplications; 0 for products of attention.
    """

    layer: str
    weight_bits: int | None
    activation_bits: int
    weights: float
    activations: float
    multiplications: float

    @property
    def share(self) -> float:
        return self.weights + self.activations


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What some layers in float are worth, all others as they are, without a new fit: PSNR of the calibration's held-out samples
    against that of its integer simulation, paired.

    Attributes:
        layers: their names. mean: dB. low, high: its 95 % interval (Student's t). seeds: held-out samples.
    """

    layers: tuple[str, ...]
    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the layers do to the end of the sampler.

    Attributes:
        runs: held-out samples; a share has a relative standard deviation of about sqrt(2 / runs).
        weights, activations: shares of all layers.
        weights_together, activations_together: power of all layers' errors together over the sum of powers; below 1 they
            cancel out.
        scheme: of the activations.
        layers: those with the largest share first.
        in_float: layers that make much of the error and cost little in float, and what these gain; None if there are none.
    """

    runs: int
    weights: float
    activations: float
    weights_together: float
    activations_together: float
    scheme: Scheme
    layers: tuple[LayerError, ...]
    in_float: Gain | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def analyze(
    folder: Path, reporter: Reporter, *, model: Path | None = None, runs: int = RUNS, device: str | None = None
) -> Analysis:
    """Measure the layers of the calibration in ``folder``, on held-out samples. A killed run goes on from ``<folder>.analysis``.

    Args:
        model: where the FP32 model lies now; default: where it was calibrated from.
        runs: samples, each run once through FP32 and back.
    Raises:
        ToolchainError: no artifact, no model, or not the one that it was made from.
    """
    if not 2 <= runs <= MOST:
        raise RecipeError(f"--runs: got {runs}, allowed are 2 to {MOST}; each is one run of the sampler and back")
    artifact, judged = Artifact.load(folder), load_reference(folder)
    recipe = _recipe_of(artifact, folder, model, device)
    with heard(reporter.warn):
        context = setup(recipe, resolve(recipe.calibrate.method), reporter.warn)
    with closing(context):
        if context.model.weight_hash != artifact.weight_hash:
            raise ModelError(
                f"the weights of {context.model.id} are not those that {folder} was calibrated from; give that model with "
                "--model, or calibrate again"
            )
        if artifact.table.correction is not None:
            reporter.warn("the method's correction while sampling is left out: layers alone are measured")
        work = folder.parent / f"{folder.name}.analysis"
        mark(work)
        checkpoint = CheckpointFile.of(
            work, "analysis", fingerprint(sha256(folder / JSON), runs, judged.seeds), names=[*artifact.layers]
        )
        saving = checkpointed(context.network) if recipe.run.offload else nullcontext()
        with saving, reporter.task("errors of layers", runs) as advance:
            seeds = held_out_seeds(runs, first=judged.seeds)  # layers are not chosen on what they are judged on
            shares = measure_shares(artifact, context, context.draw(seeds), checkpoint, advance)
    rows = rows_of(artifact, shares)
    names = cheap(rows)
    gain = _gain_of(artifact, context, judged, names, reporter) if names else None
    remove(work)
    return Analysis(
        runs=runs,
        weights=sum(shares.weights.values()),
        activations=sum(shares.activations.values()),
        weights_together=shares.together[0],
        activations_together=shares.together[1],
        scheme=artifact.sites[0].scheme,
        layers=rows,
        in_float=gain,
    )


def _recipe_of(artifact: Artifact, folder: Path, model: Path | None, device: str | None) -> Recipe:
    """The recipe that the artifact records, for the model where it lies now."""
    kept = {section: dict(values) for section, values in artifact.record["recipe"].items()}
    place = kept["model"].get("path")
    if model is None and place is not None and place.startswith("<"):
        raise ArtifactError(
            f"{folder} was calibrated from a {place.strip('<>')}, which no file holds; save the model to a folder and calibrate "
            "from there to analyze it"
        )
    if model is not None:
        kept["model"]["path"] = str(model)
    kept["run"]["out"] = str(folder.parent)
    if device is not None:
        kept["run"]["device"] = device
    return load_recipe(None, kept)


def rows_of(artifact: Artifact, shares: Shares) -> tuple[LayerError, ...]:
    """The layers, those with the largest share first."""
    sites = {site.layer: site for site in reversed(artifact.sites) if not site.is_result}
    all_products = sum(shares.multiplications.values())
    rows = [
        LayerError(
            layer=name,
            weight_bits=site.weight_bits,
            activation_bits=site.bits,
            weights=shares.weights.get(name, 0.0),
            activations=shares.activations[name],
            multiplications=shares.multiplications.get(name, 0) / all_products,
        )
        for name, site in sites.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.share))


def cheap(rows: Sequence[LayerError]) -> tuple[str, ...]:
    """Layers that matter and together cost at most ``CHEAP``, those first that have the largest share."""
    found: list[LayerError] = []
    for row in rows:
        cost = sum(each.multiplications for each in (*found, row))
        if row.weight_bits is not None and row.share >= WORTH and cost <= CHEAP:
            found.append(row)
    return tuple(row.layer for row in found)


@torch.no_grad()
def _gain_of(
    artifact: Artifact, context: Context, reference: Reference, names: tuple[str, ...], reporter: Reporter
) -> Gain:
    """Shares say nothing of what the fit made other layers take back, so the proposal is run. On the CPU, as the reference was."""
    to_host(context.network)
    network = SimulatedNetwork(artifact)
    for name in names:
        network.inner.set_submodule(name, context.network.get_submodule(name))
    samples = Samples(reference.start, reference.conditioning, reference.step_noise)
    with reporter.task(
        "some layers in float", -(-len(samples) // context.host_batch) * artifact.table.calls
    ) as advance:
        made = rollouts_of(
            network, artifact.table, samples, guidance=artifact.guidance, batch=context.host_batch,
            device=torch.device("cpu"), set_step=network.set_step, advance=advance,
        )  # fmt: skip
    fp32 = reference.fp32_latents[-1]
    gains = psnr(made.latents[-1], fp32) - psnr(reference.simulation_latents[-1], fp32)
    mean, deviation, seeds = float(gains.mean()), float(gains.std()), len(gains)
    half = student_quantiles(0.975, [seeds - 1])[0] * deviation / sqrt(seeds)
    return Gain(layers=names, mean=mean, low=mean - half, high=mean + half, seeds=seeds)
